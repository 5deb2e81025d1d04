#!/usr/bin/env bash
# Faults by enumeration (tests/fault).
#   make fault            a fixed sample of the points
#   make fault LONG=1     more than 1 000 of them, and more than 10 000 alterations of objects
#   make fault BUGS=1     every planted bug in turn: the suite must catch each
# Writes its figures into docs/reliability.md; FIGURES=no leaves that page alone. FAULT_ONLY="kill before at …" looks at
# the points with these words; further arguments go to cargo nextest.
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true
[ -z "${BUGS:-}" ] || exec scripts/fault_bugs.sh
source scripts/roots.sh
# Of the whole workspace, so that nothing foreign is compiled a second time with other features.
run=(cargo nextest run --locked --workspace --test fault --features everhold-faults/points --profile fault)
what=sample
status=0
if [ -n "${LONG:-}" ]; then
  export FAULT_LONG=1
  what=long
  rm -f target/fault/*.long.json
else
  find target/fault -name '*.json' ! -name '*.long.json' ! -name 'bugs.json' ! -name 'hostile.json' -delete 2>/dev/null || true
fi
"${run[@]}" "$@" || status=$?
if [ "$what" = long ] && [ $# = 0 ]; then
  cargo nextest run --locked --workspace --test engine --profile fault -E 'package(vault) & test(altered::)' || status=$?
fi
[ "${FIGURES:-}" = no ] || python3 scripts/fault_report.py "$what"
exit $status
