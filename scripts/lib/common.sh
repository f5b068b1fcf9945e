# Shared by setup.sh and build.sh; sourced, never run. Leaves the shell in the project root.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/versions.env

TOOLS="$PWD/.tools"
# rustup's own directory may not be on the PATH of a shell that was open while rustup was installed.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# A toolchain is installed by setup.sh and by nothing else, so a missing one shows as missing.
export RUSTUP_AUTO_INSTALL=0

die() {
  echo "tollgate: $*" >&2
  exit 1
}

# The command that hashes files, and SHA-256 of standard input in hex.
if command -v sha256sum >/dev/null; then SHA256=(sha256sum); else SHA256=(shasum -a 256); fi
sha256() { "${SHA256[@]}" | cut -d ' ' -f 1; }

# The wasm-bindgen version that Cargo.lock holds.
locked_wasm_bindgen() {
  awk '$0 == "name = \"wasm-bindgen\"" { getline; gsub(/version = |"/, ""); print; exit }' Cargo.lock
}

# sysroot_has <toolchain> <path>…: is the toolchain installed, with every path present in its sysroot?
sysroot_has() {
  local sysroot path
  sysroot=$(rustc "+$1" --print sysroot 2>/dev/null) || return 1
  shift
  for path in "$@"; do
    [ -e "$sysroot/$path" ] || return 1
  done
}
