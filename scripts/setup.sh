#!/usr/bin/env bash
# `setup.sh` installs what building and running needs: the Rust toolchain by rustup, npm tools into
# node_modules/, the bindings generator into .tools/. `setup.sh test` adds what only the tests need
# (Python tools in .tools/venv, npm clients of model APIs in tests/http/clients/node_modules),
# `setup.sh bench` what only the benchmarks need (worker-build, which builds a Worker to compare
# with, and LiteLLM's proxy in .tools/litellm, which they do without if it cannot be installed).
# Every pin is in scripts/versions.env or a lock file. What is installed is left alone, so that a
# second run does nothing.
set -euo pipefail
. "$(dirname "$0")/lib/common.sh"

FOR=${1:-build}

# step <what> <command…>: one line with the time it took, and the command's whole output if it
# fails.
step() {
  local what=$1 started=$SECONDS log status=0
  shift
  log=$(mktemp)
  echo "setup: $what …"
  "$@" >"$log" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then
    cat "$log" >&2
    rm -f "$log"
    die "setup failed at \`$what\`: see its output above"
  fi
  rm -f "$log"
  echo "setup: $what: done in $((SECONDS - started)) s"
}

need() {
  command -v "$1" >/dev/null || die "$1 is missing: $2"
}

need rustup "install it from https://rustup.rs"
need node "install Node.js 18 or newer, with npm"
need npm "install npm, which comes with Node.js"
need make "install make (Debian, Ubuntu: apt-get install make)"
need cc "install a C compiler (Debian, Ubuntu: apt-get install build-essential)"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' ||
  die "Node.js $(node --version) is too old: install 18 or newer"

mkdir -p "$TOOLS"
# Two at once would install over each other.
if command -v flock >/dev/null; then
  exec 9>"$TOOLS/setup.lock"
  flock 9
fi

WASM=lib/rustlib/wasm32-unknown-unknown/lib

stable=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
[ -n "$stable" ] || die "rust-toolchain.toml names no channel"
if ! sysroot_has "$stable" bin/cargo bin/cargo-clippy bin/rustfmt "$WASM"; then
  step "Rust $stable with clippy, rustfmt and the wasm target" rustup toolchain install "$stable" --profile minimal \
    --no-self-update --component clippy,rustfmt --target wasm32-unknown-unknown
fi

# node_modules follows from these files. `npm ci` refuses a lock file that is older than
# package.json.
npm_key=$(cat package-lock.json .npmrc | sha256)
if [ "$(cat "$TOOLS/npm.key" 2>/dev/null)" != "$npm_key" ] || [ ! -x node_modules/.bin/node ] ||
  [ ! -x node_modules/.bin/wrangler ]; then
  rm -f "$TOOLS/npm.key"
  # Under an old Node npm silently leaves out optional packages that need a newer one, and the test
  # tools do not start without them. So npm itself runs on the project's Node if the machine's is
  # older than 22.12.
  bootstrap="$TOOLS/bootstrap"
  npm_path=$PATH
  if node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a < 22 || (+a === 22 && +b < 12) ? 0 : 1)'; then
    mkdir -p "$bootstrap"
    step "Node.js" npm install --prefix "$bootstrap" --no-save --no-package-lock --no-audit --no-fund --loglevel=error \
      "node@$(node -p 'require("./package.json").devDependencies.node')"
    npm_path="$bootstrap/node_modules/.bin:$PATH"
  fi
  step "npm packages" env PATH="$npm_path" npm ci --loglevel=error
  rm -rf "$bootstrap"
  node_modules/.bin/node --version >/dev/null ||
    die "the npm package \`node\` has no binary that runs here: is npm set to ignore install scripts?"
  echo "$npm_key" >"$TOOLS/npm.key"
fi

[ "$(locked wasm-bindgen Cargo.lock)" = "$(locked wasm-bindgen-cli-support tools/bindgen/Cargo.lock)" ] ||
  die "tools/bindgen must depend on the wasm-bindgen-cli-support of the wasm-bindgen version in Cargo.lock"
if ! bindgen_is_current || [ ! -x "$BINDGEN" ]; then
  rm -f "$TOOLS/bindgen.key"
  step "bindings generator (compiles for about a minute)" cargo "+$stable" build --locked \
    --manifest-path tools/bindgen/Cargo.toml --target-dir "$TOOLS/bindgen"
  bindgen_key >"$TOOLS/bindgen.key"
fi

[ "$FOR" != build ] || exit 0

# has_tool <name> <version>
has_tool() {
  [ "$("$TOOLS/bin/$1" --version 2>/dev/null | awk '{ print $NF; exit }')" = "$2" ]
}

if [ "$FOR" = bench ]; then
  wasm_bindgen=$(locked wasm-bindgen bench/rust-worker/Cargo.lock)
  if ! has_tool wasm-bindgen "$wasm_bindgen"; then
    # Not --locked: its lock file has a crate version that some registry mirrors lack.
    step "wasm-bindgen-cli $wasm_bindgen (compiles for a few minutes)" \
      cargo "+$stable" install wasm-bindgen-cli --version "$wasm_bindgen" --root "$TOOLS" --force
  fi
  if ! has_tool worker-build "$WORKER_BUILD"; then
    step "worker-build $WORKER_BUILD (compiles for a few minutes)" \
      cargo "+$stable" install worker-build --version "$WORKER_BUILD" --root "$TOOLS" --force
  fi
  python="$TOOLS/litellm/bin/python"
  if [ "$("$python" -c 'from importlib.metadata import version; print(version("litellm"))' 2>/dev/null)" != "$LITELLM" ]; then
    rm -rf "$TOOLS/litellm"
    # A subshell, because a failed step ends its shell.
    if ! (
      step "Python environment of LiteLLM" python3 -m venv "$TOOLS/litellm"
      step "LiteLLM $LITELLM (150 MB)" "$python" -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint scripts/litellm-constraints.txt "litellm[proxy]==$LITELLM"
    ); then
      rm -rf "$TOOLS/litellm"
      echo "setup: without LiteLLM, which is left out of the benchmarks"
    fi
  fi
  exit 0
fi

clients=tests/http/clients
clients_key=$(cat "$clients/package-lock.json" "$clients/.npmrc" | sha256)
if [ "$(cat "$TOOLS/clients.key" 2>/dev/null)" != "$clients_key" ] || [ ! -d "$clients/node_modules/openai" ]; then
  rm -f "$TOOLS/clients.key"
  step "npm clients of model APIs" env PATH="$PWD/node_modules/.bin:$PATH" npm ci --prefix "$clients" --loglevel=error
  echo "$clients_key" >"$TOOLS/clients.key"
fi

need python3 "install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)"
# has_python_tool <module> <version>. Run by its module's name and not by the script that pip makes,
# which holds the venv's path: a moved checkout still works.
has_python_tool() {
  [ "$("$TOOLS/venv/bin/python" -m "$1" --version 2>/dev/null | awk '{ print $NF; exit }')" = "$2" ]
}
if ! has_python_tool schemathesis.cli "$SCHEMATHESIS" ||
  ! has_python_tool openapi_python_client "$OPENAPI_PYTHON_CLIENT"; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$(python3 --version) is too old: install Python 3.11 or newer"
  python3 -c 'import ensurepip, venv' 2>/dev/null ||
    die "python3 cannot make virtual environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"
  rm -rf "$TOOLS/venv"
  step "Python environment" python3 -m venv "$TOOLS/venv"
  step "schemathesis $SCHEMATHESIS, openapi-python-client $OPENAPI_PYTHON_CLIENT" \
    "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --constraint scripts/python-constraints.txt \
    "schemathesis==$SCHEMATHESIS" "openapi-python-client==$OPENAPI_PYTHON_CLIENT"
fi
