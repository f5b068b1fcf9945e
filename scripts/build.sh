#!/usr/bin/env bash
# Builds the Worker into build/. wrangler runs this before `dev` and `deploy`, and again when src/
# changes. It ends at once when build/ is current, by a hash of the sources and not by date.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

WASM_OPT="$PWD/node_modules/.bin/wasm-opt"
ESBUILD="$PWD/node_modules/.bin/esbuild"
for tool in "$BINDGEN" "$WASM_OPT" "$ESBUILD"; do
  [ -x "$tool" ] || die "$(basename "$tool") is not installed: run \`make setup\`"
done
bindgen_is_current || die "the bindings generator is not the version in Cargo.lock: run \`make setup\`"

mkdir -p build
# wrangler may run several builds at once. A later one then has nothing to do.
if command -v flock >/dev/null; then
  exec 9>build/.lock
  flock 9
fi

STAMP=build/.stamp
DEP_INFO="${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/tollgate.d"

# Every file that the build reads, one a line: what cargo's own list of the last build names (it has
# the files taken in by `include_str!` too), all of src/ but the command-line client, and the
# manifests and scripts.
input_files() {
  {
    find src .cargo build.rs Cargo.toml Cargo.lock tools package-lock.json scripts/build.sh scripts/bundle.mjs \
      scripts/lib/common.sh scripts/versions.env -type f -not -path 'src/bin/*' 2>/dev/null || true
    # `output: input input …`, where a space inside a name is `\ `.
    sed -n 's/^[^:]*: *//p' "$DEP_INFO" 2>/dev/null | sed 's/\\ /|/g' | tr ' |' '\n ' || true
  } | LC_ALL=C sort -u
}

# One hash over the files listed on standard input and the flags; a file that is gone counts as a
# change.
hash_inputs() {
  { echo "${RUSTFLAGS:-}"; tr '\n' '\0' | xargs -0 "${SHA256[@]}" 2>&1 || true; } | sha256
}

hash_outputs() {
  cat build/index.js build/gate.js build/openapi.js build/index_bg.wasm | sha256
}

if [ -f "$DEP_INFO" ] && [ -f build/gate.js ] && [ -f build/openapi.js ] && [ -f build/index_bg.wasm ] &&
  [ "$(cat "$STAMP" 2>/dev/null)" = "$(input_files | hash_inputs) $(hash_outputs)" ]; then
  exit 0
fi

rm -f "$STAMP"
files_before=$(input_files)
hash_before=$(hash_inputs <<<"$files_before")
touch build/.started

# `run <what> <command…>`: one line, and the command's whole output if it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
  local what=$1 started=$SECONDS
  shift
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    die "$what failed"
  fi
  echo "build: $what, $((SECONDS - started)) s"
}

# The project's own Node runs wasm-opt and esbuild.
export PATH="$PWD/node_modules/.bin:$PATH"
work=build/.work
rm -rf "$work"
run "Rust to wasm" cargo build --locked --release --lib --target wasm32-unknown-unknown --quiet
run "bindings" "$BINDGEN" "${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/release/tollgate.wasm" "$work"
# The default features of rustc's wasm target, and exceptions, which the bindings use. All of them
# are older than the runtime.
run "optimised wasm" "$WASM_OPT" -O \
  --enable-mutable-globals --enable-sign-ext --enable-nontrapping-float-to-int --enable-bulk-memory --enable-multivalue \
  --enable-reference-types --enable-exception-handling "$work/index_bg.wasm" -o build/index_bg.wasm
run "bundle" node scripts/bundle.mjs "$work/index.js" build/gate.js
rm -rf "$work"
cp src/runtime/js/entry.js build/index.js
# A JSON string is a JavaScript string.
node -e 'console.log("export default " + JSON.stringify(require("fs").readFileSync(0, "utf8").trim()) + ";")' \
  <src/admin/openapi/openapi.json >build/openapi.js

# If a source changed during the build, no stamp is written, and the next run builds again.
[ "$(hash_inputs <<<"$files_before")" = "$hash_before" ] || exit 0
while IFS= read -r file; do
  [ "$file" -nt build/.started ] && exit 0
done < <(input_files)
echo "$(input_files | hash_inputs) $(hash_outputs)" >"$STAMP"
