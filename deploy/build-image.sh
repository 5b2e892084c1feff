#!/usr/bin/env bash
# Builds Leadline's container image with buildah, for `make image`.
#
#   deploy/build-image.sh [OPTION OF 'buildah build']...
#
# Environment:
#   IMAGE       the name of the image (leadline:latest)
#   BASE_IMAGE  the base image (debian:bookworm-slim)
#
# While pip runs, the host's certificates and pip settings are mounted if they exist, so that a
# proxy or a mirror works. No layer contains them.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v buildah >/dev/null; then
    echo "buildah is missing; on Debian: apt-get install buildah" >&2
    exit 1
fi

options=(
    --format docker # the OCI format has no health check
    --layers        # reinstalls torch only when the dependencies change
    --tag "${IMAGE:-leadline:latest}"
    --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)"
    --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)"
    --build-arg "CREATED=$(date --utc +%Y-%m-%dT%H:%M:%SZ)"
)
if [[ -n ${BASE_IMAGE:-} ]]; then
    options+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
fi

# Mounts the file $2 as the secret $1, if the file exists.
offer() {
    if [[ -f $2 ]]; then
        options+=(--secret "id=$1,src=$2")
    fi
}
offer ca-bundle "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"
offer pip-site /etc/pip.conf
offer pip-user "${PIP_CONFIG_FILE:-${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf}"

exec buildah build "${options[@]}" "$@" .
