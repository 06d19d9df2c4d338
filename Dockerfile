# Both images of Hone: `docker build --target operator .` and `--target trainer .`
#
# Everything that changes rarely is in layers below; our code is the last layer. Settings of the builder's network
# (package index, proxy, certificate authority) come as build secrets and leave no trace in the image.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/hone/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# Libraries ask for the name of the user they run as.
RUN echo 'hone:x:10001:10001:hone:/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'hone:x:10001:' >> /etc/group

# The installer: used below through a mount, never part of an image.
FROM base AS uv
COPY requirements/dev.txt /tmp/
RUN --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    set -a; [ ! -f /run/secrets/build-env ] || . /run/secrets/build-env; set +a; \
    sed -n '/^uv==/,/[^\\]$/p' /tmp/dev.txt > /tmp/uv.txt && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/uv.txt

FROM base AS operator-dependencies
ARG UV_CACHE_DIR=/root/.cache/uv
COPY requirements/operator.txt /tmp/requirements/
RUN --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    set -a; [ ! -f /run/secrets/build-env ] || . /run/secrets/build-env; set +a; \
    /opt/uv/bin/uv venv -q --python "$(command -v python3)" /opt/hone \
    && /opt/uv/bin/uv pip install --python /opt/hone/bin/python --link-mode copy --compile-bytecode \
       --require-hashes -r /tmp/requirements/operator.txt

FROM operator-dependencies AS operator
COPY crds/hone_api /app/hone_api
COPY operator/hone_operator /app/hone_operator
RUN python -m compileall -q /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "hone_operator"]

FROM base AS trainer-dependencies
ARG UV_CACHE_DIR=/root/.cache/uv
COPY requirements/trainer.txt /tmp/requirements/
# One layer of about 6 GB: torch imports its CUDA libraries even where there is no GPU.
RUN --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    set -a; [ ! -f /run/secrets/build-env ] || . /run/secrets/build-env; set +a; \
    /opt/uv/bin/uv venv -q --python "$(command -v python3)" /opt/hone \
    && /opt/uv/bin/uv pip install --python /opt/hone/bin/python --link-mode copy --compile-bytecode \
       --require-hashes -r /tmp/requirements/trainer.txt
# DeepSpeed's shared-memory operator for CPU ranks is compiled here, so that pods need no compiler; the compiler is
# gone before the layer is closed. Not from the shared cache: that may hold a DeepSpeed without the operator.
COPY requirements/deepspeed.txt /tmp/requirements/
RUN --mount=type=bind,from=uv,source=/opt/uv,target=/opt/uv \
    --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    set -ae; [ ! -f /run/secrets/build-env ] || . /run/secrets/build-env; set +a; \
    apt-get update -q; \
    before="$(apt-mark showmanual)"; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends g++ python3-dev > /dev/null; \
    DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 /opt/uv/bin/uv pip install --python /opt/hone/bin/python \
       --cache-dir /tmp/uv --link-mode copy --compile-bytecode --no-build-isolation --require-hashes \
       -r /tmp/requirements/deepspeed.txt; \
    apt-mark auto '.*' > /dev/null; apt-mark manual $before > /dev/null; \
    apt-get purge -qq --autoremove > /dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /tmp/uv; \
    test -n "$(find /opt/hone -name 'deepspeed_shm_comm_op*.so')"

FROM trainer-dependencies AS trainer
COPY crds/hone_api /app/hone_api
COPY trainer/hone_trainer /app/hone_trainer
RUN python -m compileall -q /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "hone_trainer"]
