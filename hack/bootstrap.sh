#!/bin/sh
# Makes sure that uv is there, the one tool that everything else in this repository is run with, and prints its path as
# the last line on stdout; progress goes to stderr. For the Makefile: UV := $(shell hack/bootstrap.sh)
#
# uv itself is a package of the Python index, so pip brings it, however this machine reaches its index. uv does not read
# pip's configuration: `hack/bootstrap.sh --index` prints the index that pip is told to use, or nothing, for the Makefile:
#   export UV_DEFAULT_INDEX ?= $(shell hack/bootstrap.sh --index)
#   export UV_SYSTEM_CERTS ?= 1
set -eu

if [ "${1:-}" = --index ]; then
    if [ -n "${PIP_INDEX_URL:-}" ]; then
        printf '%s\n' "$PIP_INDEX_URL"
    else
        python3 -m pip config get global.index-url 2>/dev/null || true
    fi
    exit 0
fi

say() { printf '%s\n' "bootstrap: $*" >&2; }
fail() { printf '%s\n' "error: $*" >&2; exit 1; }

if [ "$(id -u)" -eq 0 ]; then
    cache=${WORKITEMS_CACHE_DIR:-/var/cache/workitem-operator}
else
    cache=${WORKITEMS_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/workitem-operator}
fi
environment=$cache/uv

for candidate in "$(command -v uv || true)" "${HOME:-/root}/.local/bin/uv" "$environment/bin/uv"; do
    if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
        printf '%s\n' "$candidate"
        exit 0
    fi
done

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
    command -v apt-get >/dev/null 2>&1 && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }
}

# A Python without ensurepip (Debian without python3-venv) has the module venv and yet makes no environment.
if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    can_install || fail "Python 3 with its venv module is missing; install it (Debian: python3 and python3-venv) and run this again."
    say "installing python3-venv"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3 python3-venv >&2
fi

say "installing uv into $environment"
mkdir -p "$cache"
rm -rf "$environment"
python3 -m venv "$environment" >&2
"$environment/bin/python" -m pip install --quiet uv >&2 ||
    fail "pip could not install uv; check how this machine reaches its Python package index (\`pip config list\`) and run this again."
"$environment/bin/uv" --version >&2
printf '%s\n' "$environment/bin/uv"
