#!/usr/bin/env bash
# Installs what the project needs: the Rust toolchain by rustup, two cargo tools into .tools/, npm tools into
# node_modules/, a Python tool into .tools/venv. Every pin is in scripts/versions.env or a lock file. Looks first, so that a second run does nothing.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

say() { echo "setup: $*"; }

need() {
  command -v "$1" >/dev/null || die "$1 is missing: $2"
}

need rustup "install it from https://rustup.rs"
need node "install Node.js 18 or newer, with npm"
need npm "install npm, which comes with Node.js"
need make "install make (Debian, Ubuntu: apt-get install make)"
need cc "install a C compiler (Debian, Ubuntu: apt-get install build-essential)"
need python3 "install Python 3.10 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' ||
  die "Node.js $(node --version) is too old: install 18 or newer"

mkdir -p "$TOOLS"
# Two set-ups at once would install over each other.
if command -v flock >/dev/null; then
  exec 9>"$TOOLS/setup.lock"
  flock 9
fi

WASM=lib/rustlib/wasm32-unknown-unknown/lib

stable=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
[ -n "$stable" ] || die "rust-toolchain.toml names no channel"
if ! sysroot_has "$stable" bin/cargo bin/cargo-clippy bin/rustfmt "$WASM"; then
  say "Rust $stable with clippy, rustfmt and the wasm target"
  rustup toolchain install "$stable" --profile minimal --no-self-update \
    --component clippy,rustfmt --target wasm32-unknown-unknown ||
    die "rustup could not install Rust $stable: see its message above"
fi

# node_modules is what npm makes of these files; `npm ci` itself refuses a lock file that package.json has left behind.
npm_key=$(cat package-lock.json .npmrc | sha256)
if [ "$(cat "$TOOLS/npm.key" 2>/dev/null)" != "$npm_key" ] || [ ! -x node_modules/.bin/node ] ||
  [ ! -x node_modules/.bin/wrangler ]; then
  say "npm packages"
  rm -f "$TOOLS/npm.key"
  # Under an old Node npm leaves out, without a word, the optional packages that want a newer one, and the test tools
  # do not start without them. So npm itself runs on the project's Node where the machine's is older than 22.12.
  bootstrap="$TOOLS/bootstrap"
  npm_path=$PATH
  if node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a < 22 || (+a === 22 && +b < 12) ? 0 : 1)'; then
    mkdir -p "$bootstrap"
    npm install --prefix "$bootstrap" --no-save --no-package-lock --no-audit --no-fund --loglevel=error \
      "node@$(node -p 'require("./package.json").devDependencies.node')" ||
      die "npm could not install the project's Node.js: see its message above"
    npm_path="$bootstrap/node_modules/.bin:$PATH"
  fi
  PATH="$npm_path" npm ci --loglevel=error || die "npm ci failed: see its message above"
  rm -rf "$bootstrap"
  node_modules/.bin/node --version >/dev/null ||
    die "the npm package \`node\` has no binary that runs here: is npm set to ignore install scripts?"
  echo "$npm_key" >"$TOOLS/npm.key"
fi

# has_tool <name> <version>
has_tool() {
  [ "$("$TOOLS/bin/$1" --version 2>/dev/null | awk '{ print $NF; exit }')" = "$2" ]
}

wasm_bindgen=$(locked_wasm_bindgen)
[ -n "$wasm_bindgen" ] || die "Cargo.lock holds no wasm-bindgen"
if ! has_tool wasm-bindgen "$wasm_bindgen"; then
  say "wasm-bindgen-cli $wasm_bindgen (compiles for a few minutes)"
  # Not --locked: its lock file asks for a crate version that not every registry mirror has.
  cargo "+$stable" install wasm-bindgen-cli --version "$wasm_bindgen" --root "$TOOLS" --force ||
    die "cargo could not install wasm-bindgen-cli $wasm_bindgen: see its message above"
fi
if ! has_tool worker-build "$WORKER_BUILD"; then
  say "worker-build $WORKER_BUILD (compiles for a few minutes)"
  # Its lock file is used where the registry still has everything in it.
  cargo "+$stable" install worker-build --version "$WORKER_BUILD" --root "$TOOLS" --force --locked ||
    cargo "+$stable" install worker-build --version "$WORKER_BUILD" --root "$TOOLS" --force ||
    die "cargo could not install worker-build $WORKER_BUILD: see its message above"
fi

# Run by its module's name and not by the script that pip makes, which holds the venv's path: a moved checkout still works.
if [ "$("$TOOLS/venv/bin/python" -m schemathesis.cli --version 2>/dev/null | awk '{ print $NF; exit }')" != "$SCHEMATHESIS" ]; then
  say "schemathesis $SCHEMATHESIS"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$(python3 --version) is too old: install Python 3.10 or newer"
  python3 -c 'import ensurepip, venv' 2>/dev/null ||
    die "python3 cannot make virtual environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
  rm -rf "$TOOLS/venv"
  python3 -m venv "$TOOLS/venv" || die "python3 could not make a virtual environment: see its message above"
  "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --constraint scripts/python-constraints.txt "schemathesis==$SCHEMATHESIS" ||
    die "pip could not install schemathesis $SCHEMATHESIS: see its message above"
fi
