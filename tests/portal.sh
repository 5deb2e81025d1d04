#!/usr/bin/env bash
# The portal in a real browser against a real platform; the specs enrol an agent and run its daemon themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v chromium >/dev/null || { echo "skipped: chromium is missing (make deps-test says why)"; exit 0; }

dir=$(mktemp -d /tmp/evh-portal-XXXXXX)
state=$dir/state
target/debug/everhold dev --state "$state" >"$dir/platform.log" 2>&1 &
platform=$!
stop() {
  kill "$platform" 2>/dev/null || true
  wait "$platform" 2>/dev/null || true
  rm -rf "$dir"
}
trap stop EXIT

for _ in $(seq 600); do
  [ -s "$state/dev.json" ] && break
  kill -0 "$platform" 2>/dev/null || { tail -20 "$dir/platform.log"; exit 1; }
  sleep 0.1
done
export EVERHOLD_DEV_JSON=$state/dev.json EVERHOLD_AGENT_BIN=$PWD/target/debug/everhold-agent
(cd web && npm run --silent e2e) || { tail -20 "$dir/platform.log"; exit 1; }
