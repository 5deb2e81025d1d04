# Endpoint and keys: from the environment, or from the dev.json named as first argument.
# shellcheck shell=bash
set -euo pipefail

if [ $# -ge 1 ]; then
  field() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["s3"][sys.argv[2]])' "$1" "$2"; }
  S3_ENDPOINT=$(field "$1" endpoint)
  S3_ACCESS_KEY=$(field "$1" access_key)
  S3_SECRET_KEY=$(field "$1" secret_key)
fi
: "${S3_ENDPOINT:?name a dev.json, or set S3_ENDPOINT, S3_ACCESS_KEY and S3_SECRET_KEY}"
: "${S3_ACCESS_KEY:?set S3_ACCESS_KEY}" "${S3_SECRET_KEY:?set S3_SECRET_KEY}"
export S3_ENDPOINT S3_ACCESS_KEY S3_SECRET_KEY

need() {
  command -v "$1" >/dev/null || { echo "$1 is missing: apt-get install $1" >&2; exit 3; }
}

# A folder with the kinds of content a backup meets.
make_sample() {
  mkdir -p "$1/sub folder/deep" "$1/many"
  head -c 20000000 /dev/urandom >"$1/large"
  head -c 3000000 /dev/zero >"$1/zeros"
  : >"$1/empty"
  printf 'text\n' >"$1/sub folder/deep/ünï & <name>.txt"
  for n in $(seq 200); do printf 'file %s\n' "$n" >"$1/many/$n"; done
}
