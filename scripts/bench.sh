#!/usr/bin/env bash
# Everhold beside restic, rustic and Borg, interleaved and repeated: `make bench`, explained in docs/benchmarks.md.
# Takes ONLY, DATA, TOOLS, ROUNDS, EXTRA, CACHE and OUT from the environment; HELP=1 lists what they may be.
# With `profile`: where Everhold's time goes, and what the machine needs at least, explained in docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."

args=()
for name in ONLY DATA TOOLS ROUNDS EXTRA CACHE OUT; do
  if [ -n "${!name:-}" ]; then args+=("--${name,,}" "${!name}"); fi
done
[ -z "${HELP:-}" ] || args+=(--help)

# In a mount namespace of its own: what is mounted for a restore is gone when the bench is, however it ends.
enter=()
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then enter=(unshare -m); fi
program=tests/bench
[ "${1:-}" != profile ] || program=tests/bench/profiling.py
exec "${enter[@]}" python3 -B "$program" --bin "${CARGO_TARGET_DIR:-target}/dist" "${args[@]}"
