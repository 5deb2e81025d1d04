"""boto3 against the store: locks, versions, create-only, presigned URLs, trailers, multipart.

Endpoint and an administrator's key come from S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY. Every check
prints one line; the exit status is 1 when one fails. Locks last a minute.
"""

import base64
import datetime
import hashlib
import io
import os
import sys
import time
import urllib.error
import urllib.request
import zlib

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

BUCKET = f"stranger-boto3-{int(time.time())}"
failures = []


def client(**config):
    return boto3.client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT"],
        aws_access_key_id=os.environ["S3_ACCESS_KEY"],
        aws_secret_access_key=os.environ["S3_SECRET_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config),
    )


def check(name, passed, detail=""):
    print(f"{'ok  ' if passed else 'FAIL'} {name} {detail}".rstrip())
    if not passed:
        failures.append(name)


def refused(name, code, call, **arguments):
    try:
        call(**arguments)
        check(name, False, "was accepted")
    except ClientError as error:
        got = error.response["Error"]["Code"]
        check(name, got == code, f"({got})")


def in_seconds(seconds):
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return now + datetime.timedelta(seconds=seconds)


def locks(s3):
    until = in_seconds(60)
    put = s3.put_object(Bucket=BUCKET, Key="locked", Body=b"locked", ObjectLockMode="COMPLIANCE",
                        ObjectLockRetainUntilDate=until, ChecksumAlgorithm="SHA256")
    place = {"Bucket": BUCKET, "Key": "locked", "VersionId": put["VersionId"]}
    refused("deleting a locked version is refused", "AccessDenied", s3.delete_object, **place)
    refused("deleting it with a bypass is refused", "AccessDenied", s3.delete_object,
            BypassGovernanceRetention=True, **place)
    batch = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [
        {"Key": "locked", "VersionId": put["VersionId"]}]})
    check("deleting it in a batch is refused", batch["Errors"][0]["Code"] == "AccessDenied")
    refused("shortening its retention is refused", "AccessDenied", s3.put_object_retention,
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": in_seconds(20)}, **place)
    refused("weakening it to GOVERNANCE is refused", "AccessDenied", s3.put_object_retention,
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": in_seconds(90)}, **place)
    s3.put_object_retention(Retention={"Mode": "COMPLIANCE", "RetainUntilDate": in_seconds(90)},
                            **place)
    got = s3.get_object_retention(**place)["Retention"]
    check("extending it is reported", got["RetainUntilDate"] > until, str(got["RetainUntilDate"]))
    refused("overwriting with If-None-Match is refused", "PreconditionFailed", s3.put_object,
            Bucket=BUCKET, Key="locked", Body=b"other", IfNoneMatch="*")
    s3.delete_object(Bucket=BUCKET, Key="locked")
    check("a marker hides it, the version stays", s3.get_object(**place)["Body"].read() == b"locked")
    listed = s3.list_object_versions(Bucket=BUCKET, Prefix="locked")
    check("version and marker are listed",
          len(listed["Versions"]) == 1 and len(listed["DeleteMarkers"]) == 1)
    held = s3.put_object(Bucket=BUCKET, Key="held", Body=b"held", ObjectLockLegalHoldStatus="ON")
    place = {"Bucket": BUCKET, "Key": "held", "VersionId": held["VersionId"]}
    refused("deleting a held version is refused", "AccessDenied", s3.delete_object, **place)
    s3.put_object_legal_hold(LegalHold={"Status": "OFF"}, **place)
    s3.delete_object(**place)


def objects(s3):
    body = os.urandom(1_000_000)
    s3.put_object(Bucket=BUCKET, Key="plain", Body=body, ContentType="text/x", Metadata={"a": "b"})
    got = s3.get_object(Bucket=BUCKET, Key="plain")
    check("content, type and metadata come back",
          got["Body"].read() == body and got["ContentType"] == "text/x"
          and got["Metadata"] == {"a": "b"})
    part = s3.get_object(Bucket=BUCKET, Key="plain", Range="bytes=10-19")["Body"].read()
    check("a range comes back", part == body[10:20])
    for algorithm in ["CRC32", "SHA1", "SHA256"]:
        s3.put_object(Bucket=BUCKET, Key=f"sum-{algorithm}", Body=body, ChecksumAlgorithm=algorithm)
        head = s3.head_object(Bucket=BUCKET, Key=f"sum-{algorithm}", ChecksumMode="ENABLED")
        check(f"{algorithm} is kept", f"Checksum{algorithm}" in head)
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "plain"})
    check("a copy has the content", s3.get_object(Bucket=BUCKET, Key="copy")["Body"].read() == body)
    refused("what is not there is NoSuchKey", "NoSuchKey", s3.get_object, Bucket=BUCKET, Key="none")


def trailer(s3):
    """An unsigned stream with its checksum in a trailer, as SDKs send it over TLS."""
    body = b"x" * 70_000
    url = f"{os.environ['S3_ENDPOINT']}/{BUCKET}/trailer"
    keys = Credentials(os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])

    def send(value):
        chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n"
        raw = chunks + b"x-amz-checksum-crc32:" + value + b"\r\n\r\n"
        request = AWSRequest("PUT", url, data=raw, headers={
            "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32",
            "x-amz-decoded-content-length": str(len(body))})
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        # botocore takes the payload for a stream with a trailer only over TLS.
        signer = S3SigV4Auth(keys, "s3", "us-east-1")
        signer.payload = lambda _: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        signer.add_auth(request)
        sent = urllib.request.Request(url, data=raw, method="PUT", headers=dict(request.headers))
        sent.add_unredirected_header("content-type", "application/octet-stream")
        try:
            return urllib.request.urlopen(sent).status
        except urllib.error.HTTPError as error:
            return error.code

    good = base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))
    refusal = send(b"AAAAAA==")
    check("a wrong checksum in a trailer is refused", refusal == 400, f"({refusal})")
    check("a right one is accepted", send(good) == 200)
    got = s3.get_object(Bucket=BUCKET, Key="trailer", ChecksumMode="ENABLED")
    check("and kept, with the decoded body",
          got["Body"].read() == body and got.get("ChecksumCRC32") == good.decode())


def multipart(s3):
    body = os.urandom(12 << 20)
    s3.upload_fileobj(io.BytesIO(body), BUCKET, "parts", ExtraArgs={
        "ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": in_seconds(60)})
    head = s3.head_object(Bucket=BUCKET, Key="parts")
    check("a multipart upload keeps its lock",
          head["ObjectLockMode"] == "COMPLIANCE" and head["ContentLength"] == len(body))
    got = s3.get_object(Bucket=BUCKET, Key="parts")["Body"].read()
    check("and its content", hashlib.sha256(got).digest() == hashlib.sha256(body).digest())


def presigned(s3, version):
    url = s3.generate_presigned_url("put_object", Params={
        "Bucket": BUCKET, "Key": f"granted-{version}", "ContentType": "text/x"})

    def put(headers):
        headers = {"content-type": "text/x", **headers}
        request = urllib.request.Request(url, data=b"granted", method="PUT", headers=headers)
        try:
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            return error.code

    for name, value in [("x-amz-copy-source", f"/{BUCKET}/plain"), ("x-amz-acl", "public-read"),
                        ("x-amz-object-lock-legal-hold", "ON")]:
        check(f"{version}: an added {name} is refused", put({name: value}) == 403)
    status = put({})
    check(f"{version}: the granted put works", status == 200, f"({status})")
    url = s3.generate_presigned_url("get_object", Params={
        "Bucket": BUCKET, "Key": f"granted-{version}"})
    check(f"{version}: a granted get works", urllib.request.urlopen(url).read() == b"granted")
    url += "&retention"
    check(f"{version}: not with a parameter added", get_status(url) == 403)


def get_status(url):
    try:
        return urllib.request.urlopen(url).status
    except urllib.error.HTTPError as error:
        return error.code


def anonymous():
    try:
        urllib.request.urlopen(f"{os.environ['S3_ENDPOINT']}/{BUCKET}/plain")
        check("anonymous reads are refused", False)
    except urllib.error.HTTPError as error:
        check("anonymous reads are refused", error.code == 403)


def main():
    s3 = client()
    s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    check("the bucket is listed", BUCKET in [b["Name"] for b in s3.list_buckets()["Buckets"]])
    locks(s3)
    objects(s3)
    trailer(s3)
    multipart(s3)
    presigned(client(signature_version="s3v4"), "v4")
    presigned(client(signature_version="s3"), "v2")
    anonymous()
    print(f"boto3 {boto3.__version__}: {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
