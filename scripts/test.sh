#!/usr/bin/env bash
# The whole suite, cheapest first; prints how long each part took. Every server a test needs is started and
# stopped by the test run itself.
#   make test              everything
#   make test ONLY="lint rust"    some parts: deps lint build portal rust fault python
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true
profile=default
# Nothing is built twice there, and half the disk is enough.
if [ -n "${CI:-}" ]; then profile=ci; export CARGO_INCREMENTAL=0; fi

# A full disk shows itself as a linker killed by SIGBUS.
room=$(df --output=avail -BG . | tail -1 | tr -dc 0-9)
[ "$room" -ge 8 ] || echo "only $room GB of disk are free here; a first run takes 8 (cargo clean makes room)" >&2

declare -a names times
part() { # part NAME COMMAND…
  local name=$1 start=$SECONDS
  shift
  if [ -n "${ONLY:-}" ] && [[ " $ONLY " != *" $name "* ]]; then return; fi
  printf '\n==== %s\n' "$name"
  # Not behind `||`: bash ignores `set -e` there, and a part would end with its last command's word alone.
  local status
  set +e
  (set -e; "$@")
  status=$?
  set -e
  if [ $status != 0 ]; then
    printf '\n==== %s FAILED after %s s\n' "$name" $((SECONDS - start))
    exit 1
  fi
  names+=("$name"); times+=($((SECONDS - start)))
}

lint() {
  local script
  for script in scripts/*.sh tests/*.sh tests/*/*.sh; do bash -n "$script"; done
  cargo fmt --all --check
  # Also what only other systems build: a test asks cargo about every dependency, and has one root certificate.
  cargo fetch --locked
  # The fuzz targets are a workspace of their own: what they are made of is locked too.
  cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
  scripts/sqlx.sh --check
}
build() {
  cargo build --locked --workspace --bins
  target/debug/everhold openapi | diff -u web/openapi.json - ||
    { echo "web/openapi.json is stale: make openapi, and commit it"; return 1; }
}
rust() { source scripts/roots.sh; cargo nextest run --locked --workspace --profile "$profile"; }
# The independent decoder, and the arithmetic of the benchmarks.
python() { tests/.venv/bin/python -B -m pytest -q -p no:cacheprovider tests/decoder tests/bench; }
# The points need a build of their own; hostile bytes are in `rust` already.
fault() { FIGURES=no scripts/fault.sh; }
portal() {
  command -v npm >/dev/null || { echo "skipped: Node is missing"; return; }
  (cd web && npm run --silent lint && npm test --silent && npm run --silent build)
  tests/portal.sh
}

part deps scripts/deps.sh test
part lint lint
part build build
part portal portal
part rust rust
part fault fault
part python python

printf '\n'
for i in "${!names[@]}"; do printf '%-10s %5s s\n' "${names[$i]}" "${times[$i]}"; done
