#!/bin/bash
# rclone against the store: copy, check, sync with a change, server-side copy, multipart, purge.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
need rclone

# Debian's rclone stops over this variable even for plain http.
unset AWS_CA_BUNDLE
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bucket=stranger-rclone-$(date +%s)
export RCLONE_CONFIG=$work/none
export RCLONE_CONFIG_E_TYPE=s3 RCLONE_CONFIG_E_PROVIDER=Other RCLONE_CONFIG_E_ENDPOINT=$S3_ENDPOINT
export RCLONE_CONFIG_E_ACCESS_KEY_ID=$S3_ACCESS_KEY RCLONE_CONFIG_E_SECRET_ACCESS_KEY=$S3_SECRET_KEY
export RCLONE_CONFIG_E_REGION=us-east-1
: >"$RCLONE_CONFIG"

make_sample "$work/in"
rclone mkdir "e:$bucket"
# 20 MB in parts of 5 MiB.
rclone copy -q --s3-upload-cutoff 6M --s3-chunk-size 5M "$work/in" "e:$bucket/a"
rclone check -q "$work/in" "e:$bucket/a"
rclone check -q --download "$work/in" "e:$bucket/a"
rm "$work/in/many/7"
printf 'changed\n' >"$work/in/many/8"
rclone sync -q "$work/in" "e:$bucket/a"
rclone check -q "$work/in" "e:$bucket/a"
rclone copy -q "e:$bucket/a" "e:$bucket/b"
rclone copy -q "e:$bucket/b" "$work/out"
diff -r "$work/in" "$work/out"
[ "$(rclone lsf "e:$bucket" | sort | tr -d '\n')" = a/b/ ]
rclone purge -q "e:$bucket"
echo "rclone: copy (multipart), check, check --download, sync, server-side copy, read back, purge: ok"
