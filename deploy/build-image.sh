#!/usr/bin/env bash
# Builds Leadline's container image with buildah: what `make image` does.
#
#   deploy/build-image.sh [OPTION OF 'buildah build']...
#
# Environment:
#   IMAGE       the name of the result (leadline:latest)
#   BASE_IMAGE  what to build on (debian:bookworm-slim)
#
# The host's certificates and pip settings, where it has such, are mounted while
# pip runs, so that a proxy or a mirror works; no layer keeps them.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v buildah >/dev/null; then
    echo "buildah is missing; on Debian: apt-get install buildah" >&2
    exit 1
fi

options=(
    --format docker # the OCI format has no health check
    --layers        # torch is installed again only when the dependencies change
    --tag "${IMAGE:-leadline:latest}"
    --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)"
    --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)"
    --build-arg "CREATED=$(date --utc +%Y-%m-%dT%H:%M:%SZ)"
)
if [[ -n ${BASE_IMAGE:-} ]]; then
    options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi

# Mounts the file $2 as the secret $1, where there is such a file.
offer() {
    if [[ -f $2 ]]; then
        options+=(--secret "id=$1,src=$2")
    fi
}
offer ca-bundle "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"
offer pip-site /etc/pip.conf
offer pip-user "${PIP_CONFIG_FILE:-${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf}"

exec buildah build "${options[@]}" "$@" .
