#!/bin/sh
# Used by the Dockerfile: image-install.sh ARGUMENTS OF `uv pip install`
# Installs into /opt/hone by uv, which is itself gone afterwards. How the builder's network reaches its package index
# comes as build secrets: `build-env` (shell assignments) and `build-ca` (certificate authorities), both optional.
set -eu
set -a
[ ! -f /run/secrets/build-env ] || . /run/secrets/build-env
set +a
# Bytecode names no times: with `--timestamp`, two builds have the same digest.
export PYC_INVALIDATION_MODE=UNCHECKED_HASH
python3 -m venv /tmp/uv
/tmp/uv/bin/pip install -q --no-cache-dir --disable-pip-version-check --require-hashes -r /requirements/uv.txt
[ -e /opt/hone ] || /tmp/uv/bin/uv venv -q --python "$(command -v python3)" /opt/hone
# What no stage named a place for would stay in the layer: the packages once more.
[ -n "${UV_CACHE_DIR:-}" ] || set -- --no-cache "$@"
/tmp/uv/bin/uv pip install --python /opt/hone/bin/python --link-mode copy --compile-bytecode --require-hashes "$@"
rm -rf /tmp/uv
