#!/usr/bin/env bash
# Fuzzes the parsers of hostile bytes, one after the other; prints executions and findings of each.
#   scripts/fuzz.sh 60                 every target for a minute
#   scripts/fuzz.sh 600 kit manifest   these, ten minutes each
# libFuzzer with coverage, by flags stable rustc has: neither nightly nor cargo-fuzz is needed (both work too:
# `cargo +nightly fuzz run kit`, with the address sanitizer). Findings are kept in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}; shift || true
target=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-target}
flags=(--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=("-Cllvm-args=-sanitizer-coverage-$option")
done
RUSTFLAGS="${flags[*]}" nice -n 15 cargo build -q --release --locked --bins --target "$target"
names=("$@"); [ ${#names[@]} -gt 0 ] || names=($(ls fuzz_targets | sed 's/\.rs$//'))
printf '%-12s %12s %10s %s\n' target executions coverage findings
failed=0
for name in "${names[@]}"; do
  work=$(mktemp -d); mkdir -p "artifacts/$name"
  log=$work/log
  nice -n 15 "$CARGO_TARGET_DIR/$target/release/$name" "$work" "corpus/$name" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="artifacts/$name/" >"$log" 2>&1 || failed=1
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" || true)
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2 || true)
  found=$(find "artifacts/$name" -type f | wc -l)
  printf '%-12s %12s %10s %s\n' "$name" "${runs:-?}" "${coverage:-?}" "$found"
  [ "$found" = 0 ] || grep -m3 -E 'panicked|ERROR|SUMMARY' "$log" || true
  rm -rf "$work"
done
exit $failed
