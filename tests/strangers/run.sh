#!/bin/bash
# All strangers against one endpoint: run.sh [dev.json], or S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY.
here=$(dirname "$0")
# shellcheck source=common.sh
. "$here/common.sh"

venv=$here/../.venv/strangers
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import boto3' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q -r "$here/requirements.txt"
fi
"$venv/bin/python" "$here/boto3_locks.py"
"$here/restic.sh"
"$here/rclone.sh"
