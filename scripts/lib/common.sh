# Shared by setup.sh and build.sh; sourced, never run. Leaves the shell in the project root.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/versions.env

TOOLS="$PWD/.tools"
# Writes the bindings of the compiled Worker; see tools/bindgen.
BINDGEN="$TOOLS/bindgen/debug/bindgen"
# rustup's own directory may not be on the PATH of a shell that was open while rustup was installed.
PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
# Only setup.sh installs toolchains, so that a missing one is an error elsewhere.
export RUSTUP_AUTO_INSTALL=0

die() {
  echo "tollgate: $*" >&2
  exit 1
}

# The command that hashes files, and SHA-256 of standard input in hex.
if command -v sha256sum >/dev/null; then SHA256=(sha256sum); else SHA256=(shasum -a 256); fi
sha256() { "${SHA256[@]}" | cut -d ' ' -f 1; }

# sysroot_has <toolchain> <path>…: succeeds if the toolchain is installed and has every path in its
# sysroot.
sysroot_has() {
  local sysroot path
  sysroot=$(rustc "+$1" --print sysroot 2>/dev/null) || return 1
  shift
  for path in "$@"; do
    [ -e "$sysroot/$path" ] || return 1
  done
}

# The version of crate $1 in lock file $2.
locked() {
  awk -v name="name = \"$1\"" '$0 == name { getline; gsub(/version = |"/, ""); print; exit }' "$2"
}

# Succeeds if the bindings generator was built from tools/bindgen as it is, with the Worker's version
# of wasm-bindgen.
bindgen_key() {
  cat tools/bindgen/Cargo.toml tools/bindgen/Cargo.lock tools/bindgen/src/main.rs rust-toolchain.toml | sha256
}
bindgen_is_current() {
  [ "$(locked wasm-bindgen Cargo.lock)" = "$(locked wasm-bindgen-cli-support tools/bindgen/Cargo.lock)" ] &&
    [ "$(cat "$TOOLS/bindgen.key" 2>/dev/null)" = "$(bindgen_key)" ]
}
