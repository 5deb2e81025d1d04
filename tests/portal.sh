#!/usr/bin/env bash
# The portal in a real browser against a real platform with one enrolled agent running as a daemon.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v chromium >/dev/null || { echo "skipped: chromium is missing (make deps-test says why)"; exit 0; }

dir=$(mktemp -d /tmp/evh-portal-XXXXXX)
state=$dir/state
pids=()
stop() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap stop EXIT

target/debug/everhold dev --state "$state" >"$dir/platform.log" 2>&1 &
pids+=($!)
for _ in $(seq 600); do
  [ -s "$state/dev.json" ] && break
  kill -0 "${pids[0]}" 2>/dev/null || { tail -20 "$dir/platform.log"; exit 1; }
  sleep 0.1
done
value() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$state/dev.json" "$1"; }

mkdir -p "$dir/source/folder/deep"
for i in $(seq 300); do echo "file $i" >"$dir/source/folder/file-$i.txt"; done
echo deep >"$dir/source/folder/deep/leaf"
export EVERHOLD_AGENT_HOME=$dir/agent
target/debug/everhold-agent enroll --server "$(value api_url)" --token "$(value enrolment_token)" --name portal-test
target/debug/everhold-agent backup "$dir/source" >/dev/null
target/debug/everhold-agent daemon >"$dir/agent.log" 2>&1 &
pids+=($!)

cd web
EVERHOLD_DEV_JSON=$state/dev.json npm run --silent e2e || { tail -20 "$dir/platform.log" "$dir/agent.log"; exit 1; }
