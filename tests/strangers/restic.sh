#!/bin/bash
# restic against the store: init, two backups, check with data, restore, forget with prune.
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
need restic

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bucket=stranger-restic-$(date +%s)
export AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET_KEY
export RESTIC_PASSWORD=stranger RESTIC_REPOSITORY=s3:$S3_ENDPOINT/$bucket RESTIC_CACHE_DIR=$work/cache

make_sample "$work/in"
restic init -q
restic backup -q "$work/in"
printf 'more\n' >>"$work/in/many/1"
restic backup -q "$work/in"
restic check -q --read-data
restic restore -q latest --target "$work/out"
diff -r "$work/in" "$work/out$work/in"
restic forget -q --keep-last 1 --prune
restic check -q
[ "$(restic snapshots --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))')" = 1 ]
echo "restic: init, backup twice, check --read-data, restore, diff, forget --prune, check: ok"
