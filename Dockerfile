# The images of Hone: `docker build --target operator .`, `--target trainer`, and `--target trainer-vllm` for GRPO whose
# samples vLLM generates on GPUs.
#
# What changes rarely is in the layers below, our code in the last. Settings of the builder's network (package index,
# proxy, certificate authority) come as build secrets and leave no trace in the image.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/hone/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# Libraries ask for the name of the user they run as.
RUN echo 'hone:x:10001:10001:hone:/tmp:/usr/sbin/nologin' >> /etc/passwd && echo 'hone:x:10001:' >> /etc/group
COPY dev/image-install.sh requirements/uv.txt /requirements/

FROM base AS operator-dependencies
ARG UV_CACHE_DIR=/root/.cache/uv
COPY requirements/operator.txt /requirements/
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    sh /requirements/image-install.sh -r /requirements/operator.txt
# Gives the memory of deleted objects back to the node; Python's own allocator and the C library keep most of it.
RUN --mount=type=secret,id=build-env --mount=type=secret,id=build-ca set -e; \
    apt-get update -q; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends libjemalloc2 > /dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/*
ENV LD_PRELOAD=libjemalloc.so.2 \
    PYTHONMALLOC=malloc \
    MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0

# The base image has no bytecode of Python's own library, and pods cannot write it: half a second at each start.
# Bytecode names no times: with `--timestamp`, two builds have the same digest.
RUN python -m compileall -q --invalidation-mode unchecked-hash -x '/(tests?|lib2to3|site-packages|dist-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM operator-dependencies AS operator
COPY crds/hone_api /app/hone_api
COPY operator/hone_operator /app/hone_operator
# Checked, so that an image made from this one can replace a file.
RUN python -m compileall -q --invalidation-mode checked-hash /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "hone_operator"]

FROM base AS trainer-dependencies
ARG UV_CACHE_DIR=/root/.cache/uv
COPY requirements/trainer.txt /requirements/
# One layer of about 6 GB: torch imports its CUDA libraries even where there is no GPU.
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    sh /requirements/image-install.sh -r /requirements/trainer.txt
# DeepSpeed's shared-memory operator for ranks on CPU is compiled here, so that pods need no compiler; the compiler is
# gone before the layer is closed. Not from the shared cache: that may hold a DeepSpeed without the operator.
COPY requirements/deepspeed.txt /requirements/
RUN --mount=type=secret,id=build-env --mount=type=secret,id=build-ca set -e; \
    kept="$(apt-mark showmanual)"; \
    apt-get update -q; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends g++ python3-dev > /dev/null; \
    DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 sh /requirements/image-install.sh \
        --cache-dir /tmp/cache --no-build-isolation -r /requirements/deepspeed.txt; \
    test -n "$(find /opt/hone -name 'deepspeed_shm_comm_op*.so')"; \
    apt-mark auto '.*' > /dev/null; apt-mark manual $kept > /dev/null; \
    apt-get purge -qq --autoremove > /dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /tmp/*

COPY requirements/gguf.txt /requirements/
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    sh /requirements/image-install.sh --no-deps --target /opt/hone/share/hone/gguf -r /requirements/gguf.txt

# What NCCL loads to use InfiniBand and RoCE; without it only TCP is left. And the compiler that Triton calls when its
# first kernel starts on a GPU, which is the loss head's in every run there.
RUN --mount=type=secret,id=build-env --mount=type=secret,id=build-ca set -e; \
    apt-get update -q; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
        gcc libc6-dev python3-dev libibverbs1 ibverbs-providers > /dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# The model that identifies languages, unpacked: each Dataset would take half a second for it.
RUN python -c "import io, lzma, numpy, py3langid.langid as p; m = p.MODEL_DIR / p.MODEL_FILE; \
        [numpy.save(m.with_name(k), v) for k, v in numpy.load(io.BytesIO(lzma.decompress(m.read_bytes()))).items()]"

# As for the operator.
RUN python -m compileall -q --invalidation-mode unchecked-hash -x '/(tests?|lib2to3|site-packages|dist-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM trainer-dependencies AS trainer
COPY crds/hone_api /app/hone_api
COPY trainer/hone_trainer /app/hone_trainer
COPY cli/hone_cli /app/hone_cli
RUN python -m compileall -q --invalidation-mode checked-hash /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "hone_trainer"]

FROM base AS vllm-dependencies
ARG UV_CACHE_DIR=/root/.cache/uv
# The compiler stays: Triton and vLLM compile kernels when they start.
RUN --mount=type=secret,id=build-env --mount=type=secret,id=build-ca set -e; \
    apt-get update -q; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
        g++ python3-dev libibverbs1 ibverbs-providers > /dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY requirements/vllm.txt /requirements/
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    sh /requirements/image-install.sh -r /requirements/vllm.txt
COPY requirements/gguf.txt /requirements/
RUN --mount=type=cache,target=/root/.cache/uv --mount=type=secret,id=build-env --mount=type=secret,id=build-ca \
    sh /requirements/image-install.sh --no-deps --target /opt/hone/share/hone/gguf -r /requirements/gguf.txt

# The model that identifies languages, unpacked: each Dataset would take half a second for it.
RUN python -c "import io, lzma, numpy, py3langid.langid as p; m = p.MODEL_DIR / p.MODEL_FILE; \
        [numpy.save(m.with_name(k), v) for k, v in numpy.load(io.BytesIO(lzma.decompress(m.read_bytes()))).items()]"

# As for the operator.
RUN python -m compileall -q --invalidation-mode unchecked-hash -x '/(tests?|lib2to3|site-packages|dist-packages)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM vllm-dependencies AS trainer-vllm
COPY crds/hone_api /app/hone_api
COPY trainer/hone_trainer /app/hone_trainer
RUN python -m compileall -q --invalidation-mode checked-hash /app
USER 10001:10001
ENTRYPOINT ["python", "-m", "hone_trainer"]
