#!/usr/bin/env bash
# Plants each bug of crates/faults in turn and shows which test catches it. One build holds them all (feature
# `bugs`, refused without debug assertions); EVERHOLD_BUG chooses. First without any: there all must be green.
#   make fault BUGS=1     scripts/fault_bugs.sh skip-row-lock    one of them
set -euo pipefail
cd "$(dirname "$0")/.."
export SQLX_OFFLINE=true
mkdir -p target/fault
names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(sed -n 's/.*=> "\([a-z-]*\)",/\1/p' crates/faults/src/bugs.rs))

# Where each is to be seen: the tests nearest to it, so that a run takes minutes.
where() {
  case $1 in
    skip-row-lock) echo 'package(catalog) & test(/race::/)' ;;
    skip-epoch-check) echo 'package(catalog) & test(/commit::a_stale_fence/)' ;;
    nonce-not-advanced) echo 'package(vault) & test(/vectors::|damage::two_frames/)' ;;
    ignore-refused-extension) echo 'package(everhold-faults) & test(/planted::a_commit/)' ;;
    trust-stale-cache) echo 'package(everhold-faults) & test(/planted::what_rotted/)' ;;
    error-as-empty) echo 'package(everhold-faults) & test(/planted::a_store/)' ;;
    delete-by-key) echo 'package(catalog) & test(/collection::a_pack_nothing|letting_go::/)' ;;
    accept-unsigned-manifest) echo 'package(vault) & test(/damage::every_flipped_bit_of_a_signed/) | package(catalog) & test(/commit::a_manifest_signed/)' ;;
    *) echo 'all()' ;;
  esac
}
filter() { local all=; for name in "${names[@]}"; do all="${all:+$all | }($(where "$name"))"; done; echo "$all"; }
run() { # run BUG FILTER
  EVERHOLD_BUG=$1 cargo nextest run --locked --workspace --exclude auth --exclude everhold-agent --profile fault \
    --test fault --test it --test engine --features everhold-faults/points,everhold-faults/bugs --no-fail-fast \
    --status-level all --success-output never --failure-output never -E "$2" >"target/fault/bug-${1:-none}.log" 2>&1
}

if ! run "" "$(filter)"; then
  tail -30 target/fault/bug-none.log; echo "red without any bug"; exit 1
fi
missed=0; lines=
for name in "${names[@]}"; do
  caught=
  if run "$name" "$(where "$name")"; then missed=1; else
    caught=$(sed -n 's/^ *\(FAIL\|SIGABRT\|TIMEOUT\) \[[^]]*\] *\(([^)]*) \)\?//p' "target/fault/bug-$name.log" | sort -u)
    [ -n "$caught" ] || { tail -5 "target/fault/bug-$name.log"; missed=1; }
  fi
  printf '%-26s %s\n' "$name" "$(echo "${caught:-NOT CAUGHT}" | head -3 | tr '\n' ';')"
  lines+="$name"$'\t'"$(echo "$caught" | head -4 | tr '\n' '|')"$'\n'
done
if [ $# = 0 ]; then
  printf '%s' "$lines" | python3 -c '
import json, sys
rows = [line.rstrip("\n").split("\t") for line in sys.stdin if line.strip()]
json.dump([{"bug": bug, "caught_by": [t.strip() for t in tests.split("|") if t.strip()]} for bug, tests in rows],
          open("target/fault/bugs.json", "w"))'
  [ "${FIGURES:-}" = no ] || python3 scripts/fault_report.py bugs
fi
exit $missed
