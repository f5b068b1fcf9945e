#!/usr/bin/env bash
# scripts/mutants.sh FILE…: mutation testing of source files, such as `src/limiter/*.rs`. Needs
# cargo-mutants on the PATH. The results are in mutants.out/; missed.txt names the mutants that no
# test fails with.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

[ $# -gt 0 ] || die "which files? scripts/mutants.sh 'src/limiter/*.rs'"
command -v cargo-mutants >/dev/null || die "cargo-mutants is not installed: cargo install --locked cargo-mutants@27.1.0"

files=()
for file in "$@"; do files+=(--file "$file"); done
# Few random cases, without shrinking. Try a mutant that survives these with all cases.
export PROPTEST_CASES="${PROPTEST_CASES:-8}" PROPTEST_MAX_SHRINK_ITERS=0
export TOLLGATE_MODEL_STEPS="${TOLLGATE_MODEL_STEPS:-6000}"
exec cargo mutants --no-shuffle --timeout 60 "${files[@]}" -- --lib --test engine
