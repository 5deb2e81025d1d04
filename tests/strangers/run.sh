#!/usr/bin/env bash
# All strangers against one endpoint: run.sh [dev.json], or S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY.
here=$(dirname "$0")
# shellcheck source=common.sh
. "$here/common.sh"

python=$here/../.venv/bin/python
[ -x "$python" ] || { echo "tests/.venv is missing: make deps-test" >&2; exit 3; }
"$python" "$here/boto3_locks.py"
"$here/restic.sh"
"$here/rclone.sh"
