# Leadline's server in a container. Build it with BuildKit (docker build .) or buildah (make image).
# docs/deployment.md describes how to run it.
#
# A change of Leadline's sources does not reinstall the dependencies. Torch and all other
# dependencies are one layer that depends only on their list. Leadline is a small layer on top, so
# nodes pull a few hundred kilobytes for a new release.

ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

# The base of every stage: the interpreter, and the certificates for the download of cifar10.
FROM ${BASE_IMAGE} AS interpreter
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*

# The list of runtime dependencies. Other changes in pyproject.toml do not change the list or the
# layer that is installed from it.
FROM interpreter AS requirements
COPY pyproject.toml /source/
COPY deploy/requirements.py /source/deploy/
RUN python3 /source/deploy/requirements.py server > /requirements.txt

# pip has a separate environment, which is not part of the image.
FROM interpreter AS installer
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/leadline
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_INPUT=1 \
    PIP_NO_COMPILE=1 \
    PIP_PYTHON=/opt/leadline/bin/python \
    PIP_CONSTRAINT=/constraints.txt
COPY constraints.txt /

# The secrets are optional: the builder's certificates and pip settings, for networks with a proxy
# or a mirror. They are mounted while pip runs, and no layer contains them.
FROM installer AS dependencies
COPY --from=requirements /requirements.txt /
# torch depends on triton, 1 GB that compiles kernels at run time. It needs a C compiler, which the
# image does not have. Build with DROP= to keep it.
ARG DROP=triton
# Compile the bytecode once here. At run time the files are read-only, so every worker would compile
# torch again. With unchecked-hash the bytecode stays valid if a tool that copies layers changes
# modification times. Some files of torch need a newer Python, so errors are ignored.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=pip-site,target=/etc/pip.conf \
    --mount=type=secret,id=pip-user,target=/root/.config/pip/pip.conf \
    /opt/pip/bin/pip install --requirement /requirements.txt \
    && if [ -n "$DROP" ]; then /opt/pip/bin/pip uninstall --yes $DROP; fi \
    && { /opt/leadline/bin/python -m compileall -qq -j 0 \
            --invalidation-mode unchecked-hash /opt/leadline/lib || true; }

FROM installer AS project
COPY pyproject.toml README.md LICENSE /source/
COPY protos /source/protos
COPY models /source/models
COPY server /source/server
COPY client /source/client
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=ca-bundle,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=pip-site,target=/etc/pip.conf \
    --mount=type=secret,id=pip-user,target=/root/.config/pip/pip.conf \
    /opt/pip/bin/pip install --no-deps --prefix /project /source \
    && /opt/leadline/bin/python -m compileall -q --invalidation-mode unchecked-hash /project/lib

FROM interpreter AS runtime
ARG BASE_IMAGE
# A fixed numeric user: a volume keeps its owner with the next image, and Kubernetes can verify that
# it is not root.
RUN groupadd --gid 10001 leadline \
    && useradd --uid 10001 --gid 10001 --no-create-home \
        --home-dir /var/lib/leadline --shell /usr/sbin/nologin leadline \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/leadline
COPY --from=dependencies /opt/leadline /opt/leadline
COPY --from=project /project /opt/leadline

ENV PATH=/opt/leadline/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LEADLINE_HOST=0.0.0.0 \
    LEADLINE_METRICS_HOST=0.0.0.0 \
    LEADLINE_DATA_DIR=/var/lib/leadline \
    LEADLINE_TRANSPORT=grpcio \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

USER 10001:10001
WORKDIR /var/lib/leadline
VOLUME /var/lib/leadline
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# A server with TLS needs LEADLINE_TARGET=https://localhost:50051 and LEADLINE_CA for it.
# The server has five minutes to decode datasets before it serves.
HEALTHCHECK --interval=15s --timeout=10s --start-period=5m --retries=3 \
    CMD ["leadline", "health", "--timeout", "5"]
ENTRYPOINT ["leadline", "serve"]

ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Leadline" \
    org.opencontainers.image.description="Trains image classifiers over gRPC, streams their accuracies, serves every variant" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}"
