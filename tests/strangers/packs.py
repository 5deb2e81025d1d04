"""boto3 with the store administrator's key of dev.json, against the packs of a real backup.

    packs.py DEV_JSON WORD…

Every version of the vault bucket must refuse deletion, shortening and overwriting, and none of the words
(content and names that were backed up) may be readable in any of them. Exit status 1 when one check fails.
"""

import datetime
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def refused(call, codes, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"] in codes
    return False


def main(dev_json, words):
    s3 = json.load(open(dev_json))["s3"]
    store = boto3.client(
        "s3",
        endpoint_url=s3["endpoint"],
        region_name=s3["region"],
        aws_access_key_id=s3["access_key"],
        aws_secret_access_key=s3["secret_key"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )
    pages = store.get_paginator("list_object_versions").paginate(Bucket=s3["bucket"], Prefix="v1/")
    versions = [version for page in pages for version in page.get("Versions", [])]
    failures = []
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    for version in versions:
        this = {"Bucket": s3["bucket"], "Key": version["Key"], "VersionId": version["VersionId"]}
        checks = {
            "deleting": refused(store.delete_object, {"AccessDenied"}, **this),
            "deleting with bypass": refused(store.delete_object, {"AccessDenied"}, BypassGovernanceRetention=True, **this),
            "shortening": refused(
                store.put_object_retention,
                {"AccessDenied", "InvalidRequest"},
                Retention={"Mode": "COMPLIANCE", "RetainUntilDate": soon},
                **this,
            ),
            "overwriting": refused(
                store.put_object, {"PreconditionFailed"}, Bucket=s3["bucket"], Key=version["Key"], Body=b"x", IfNoneMatch="*"
            ),
        }
        failures += [f"{what} {version['Key']} was not refused" for what, passed in checks.items() if not passed]
        body = store.get_object(**this)["Body"].read()
        failures += [f"{word!r} is readable in {version['Key']}" for word in words if word.encode() in body]
    if not any("/data/" in version["Key"] for version in versions):
        failures.append("there is no data pack: the check says nothing")
    print(f"{len(versions)} objects: deletion, bypass, shortening, overwriting refused; {len(words)} words nowhere readable")
    for failure in failures:
        print("FAIL", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
