#!/usr/bin/env bash
# Builds the image and tests it without a container engine, for `make image-test`. It needs root,
# about ten minutes and 25 GB of free disk. It:
#
#   1. builds the image with buildah on debian:bookworm-slim, or on a substitute from debootstrap if
#      the pull fails;
#   2. checks the image's configuration, and that it contains no unwanted files;
#   3. starts the server in the image's root like a container engine, with TLS and a token, after
#      it has refused to start without them, waits for its health check,
#      trains an epoch, predicts, lists misclassified images, and scrapes metrics;
#   4. stops it with the image's stop signal, starts it again on the same volume, and checks that
#      the model is still there.
#
# Environment:
#   BASE_IMAGE      the base image, instead of the choice above
#   STORAGE_DRIVER  buildah's driver: vfs works everywhere, overlay is faster
#   KEEP_IMAGE      set it to keep the image, in .cache/
#   REUSE_IMAGE     set it to test a kept image instead of building one
#
# All files are in .cache/image-test. Only the base image stays there afterwards.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=$(dirname "$here")/.cache/image-test
readonly here cache
readonly image=localhost/leadline:image-test
readonly debian=docker.io/library/debian:bookworm-slim
readonly stand_in=localhost/debian-stand-in:bookworm
readonly driver=${STORAGE_DRIVER:-vfs}
readonly build_limit=2400 # seconds
readonly serving_limit=120
readonly command_limit=600
readonly stop_limit=30 # compose.yaml's stop_grace_period
readonly free_disk_needed=25 # GB

export CONTAINERS_STORAGE_CONF=$cache/storage.conf
export BUILDAH_ISOLATION=chroot
export TMPDIR=$cache/tmp
unset STORAGE_DRIVER

work=       # the folder of this run
container=  # buildah's name for the image's root
root=       # where that root is mounted
launcher=   # unshare, our child
server=     # the server, its child: process 1 in its own namespace
environment=() # of the image, as NAME=VALUE
entrypoint=()
user=
volume_path=

main() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    need_root_and_tools
    open_cache
    local started=$SECONDS
    if [[ -z ${REUSE_IMAGE:-} ]]; then
        choose_base
        build
    fi
    unpack
    check_configuration
    check_contents

    refuse_to_be_open
    protect
    start_server
    train_an_epoch
    use_the_model
    scrape_metrics
    stop_server
    check_volume

    say "starting again on the same volume"
    start_server
    in_image leadline models --json >"$work/models-again.json"
    cmp "$work/models.json" "$work/models-again.json" || fail "the models differ after a restart"
    stop_server

    say "passed in $((SECONDS - started)) s; the image has $(image_size)"
}

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    printf 'image-test: %s\n' "$*" >&2
    if [[ -n $work && -s $work/server.log ]]; then
        printf -- '--- the end of the log of the server\n' >&2
        tail -n 40 "$work/server.log" >&2
    fi
    exit 1
}

# ---------------------------------------------------------------- preparation

need_root_and_tools() {
    local missing=() tool package
    while read -r tool package; do
        command -v "$tool" >/dev/null || missing+=("$package")
    done <<-'TOOLS'
		buildah buildah
		debootstrap debootstrap
		ip iproute2
		unshare util-linux
		nsenter util-linux
		setpriv util-linux
	TOOLS
    if ((${#missing[@]})); then
        fail "packages are missing; on Debian: apt-get install ${missing[*]}"
    fi
    if ((EUID != 0)); then
        fail "chroot and namespaces need root: sudo make image-test"
    fi
}

# The images have a separate storage, so the host's storage does not change. Only one run at a time
# uses it.
open_cache() {
    mkdir -p "$cache/tmp"
    exec 9>"$cache/lock"
    flock --nonblock 9 || fail "another run uses $cache"
    cat >"$CONTAINERS_STORAGE_CONF" <<-CONF
		[storage]
		driver = "$driver"
		graphroot = "$cache/$driver"
		runroot = "$cache/$driver-run"
	CONF
    work=$(mktemp --directory)
    buildah rm --all >/dev/null # left by a killed run
    local free
    free=$(df --output=avail --block-size=GB "$cache" | tail -n 1 | tr -dc 0-9)
    ((free >= free_disk_needed)) || fail "$cache has $free GB free, and this needs $free_disk_needed"
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    if [[ -n $launcher ]]; then
        kill -KILL "$launcher" 2>/dev/null || true # unshare kills its child
        wait "$launcher" 2>/dev/null || true
    fi
    if [[ -n $work ]]; then
        buildah rm --all >/dev/null || true
        if [[ -z ${KEEP_IMAGE:-} ]]; then
            buildah rmi "$image" >/dev/null 2>&1 || true
        fi
        buildah rmi --prune >/dev/null 2>&1 || true
        rm -rf "$work"
    fi
    exit "$status"
}

# --------------------------------------------------------------------- build

choose_base() {
    if [[ -n ${BASE_IMAGE:-} ]]; then
        return
    fi
    if buildah inspect --type image "$stand_in" >/dev/null 2>&1; then
        BASE_IMAGE=$stand_in
        say "building on the stand-in of an earlier run, $stand_in"
    elif timeout --foreground 120 buildah pull --quiet "$debian" >/dev/null 2>"$work/pull.log"; then
        BASE_IMAGE=$debian
        say "building on $debian"
    else
        BASE_IMAGE=$stand_in
        say "$debian cannot be pulled: building on a stand-in made by debootstrap"
        make_stand_in
    fi
}

make_stand_in() {
    timeout --foreground "$command_limit" debootstrap --variant=minbase bookworm "$work/base" \
        >"$work/debootstrap.log" 2>&1 || fail "debootstrap failed: $(tail -n 5 "$work/debootstrap.log")"
    rm -rf "$work/base/var/cache/apt/archives/"*.deb "$work/base/var/lib/apt/lists/"*
    local scratch
    scratch=$(buildah from scratch)
    buildah add --quiet "$scratch" "$work/base" / >/dev/null
    buildah commit --quiet --rm "$scratch" "$stand_in" >/dev/null
    rm -rf "$work/base"
}

# No layer cache: with vfs, each layer is a full copy of several gigabytes.
build() {
    local started=$SECONDS
    say "building with buildah ($driver); the log is shown when it fails"
    IMAGE=$image BASE_IMAGE=$BASE_IMAGE timeout --foreground "$build_limit" \
        "$here/build-image.sh" --layers=false >"$work/build.log" 2>&1 ||
        fail "the build failed or took over $build_limit s: $(tail -n 40 "$work/build.log")"
    echo "built in $((SECONDS - started)) s, $(image_size)"
}

image_size() {
    buildah images --format '{{.Size}}' "$image"
}

unpack() {
    container=$(buildah from "$image")
    root=$(buildah mount "$container")
}

# --------------------------------------------------------------------- checks

# Inspects the image with buildah and a Go template.
of_image() {
    buildah inspect --type image --format "$1" "$image"
}

same() {
    [[ $2 == "$3" ]] || fail "$1 is '$2', not '$3'"
}

check_configuration() {
    say "checking the image's configuration"
    mapfile -t environment < <(of_image '{{range .Docker.Config.Env}}{{println .}}{{end}}' | sed '/^$/d')
    mapfile -t entrypoint < <(of_image '{{range .Docker.Config.Entrypoint}}{{println .}}{{end}}' | sed '/^$/d')
    user=$(of_image '{{.Docker.Config.User}}')
    # shellcheck disable=SC2016 # $path belongs to the template
    volume_path=$(of_image '{{range $path, $_ := .Docker.Config.Volumes}}{{$path}}{{end}}')
    environment+=("HOME=$(grep ":${user}:" "$root/etc/passwd" | cut -d: -f6)")

    same "the entry point" "${entrypoint[*]}" "leadline serve"
    same "the user" "$user" 10001:10001
    same "the volume" "$volume_path" /var/lib/leadline
    same "the volume's owner" "$(stat --format=%u:%g "$root$volume_path")" "$user"
    same "the health check" "$(of_image '{{.Docker.Config.Healthcheck.Test}}')" "[CMD leadline health --timeout 5]"
    same "the ports" "$(of_image '{{.Docker.Config.ExposedPorts}}')" "map[50051/tcp:{} 9464/tcp:{}]"
    same "the stop signal" "$(of_image '{{.Docker.Config.StopSignal}}')" SIGTERM
    printf '%s\n' "${environment[@]}"
}

check_contents() {
    say "checking the image's contents"
    local packages
    packages=$(echo "$root"/opt/leadline/lib/python3.*/site-packages)
    [[ -d $packages/leadline/server && -d $packages/torch ]] || fail "Leadline or torch is missing"
    compgen -G "$packages/torch/__pycache__/__init__.*.pyc" >/dev/null || fail "torch is not compiled"
    compgen -G "$packages/leadline/server/__pycache__/main.*.pyc" >/dev/null || fail "Leadline is not compiled"

    local unwanted
    unwanted=$(
        cd "$root"
        find . -xdev \( -name pip.conf -o -path './root/.cache' -o -path './var/cache/apt/archives/*.deb' \
            -o -path './opt/pip' -o -path './source' -o -path './run/secrets' -o -name .git \
            -o -path '*/site-packages/pip' -o -path '*/site-packages/leadline/*/tests' \) -print
        find usr/local/share/ca-certificates -type f 2>/dev/null || true
        find root var/lib/leadline -type f ! -name .bashrc ! -name .profile
        find opt -xdev \( -user 10001 -o -perm /o+w \) ! -type l
    )
    [[ -z $unwanted ]] || fail "the image contains unwanted files: $unwanted"

    # The image has all certificates of the distribution, and no others.
    same "the number of certificates" \
        "$(grep --count 'BEGIN CERTIFICATE' "$root/etc/ssl/certs/ca-certificates.crt")" \
        "$(find "$root/usr/share/ca-certificates" -name '*.crt' | wc -l)"

    du --summarize --human-readable "$root" | sed "s#$root#/#"
    du --human-readable --max-depth=1 --threshold=20M "$packages" | sort --human-numeric-sort --reverse | sed "s#$root##"
}

# -------------------------------------------------------------------- service

# Runs a command in the image's root, as the image's user, in new namespaces.
in_new_container() {
    unshare --mount --net --pid --fork --kill-child=KILL -- \
        "$here/run-in-root.sh" "$root" "$work/volume" "$volume_path" "$user" \
        env --ignore-environment --chdir="$volume_path" "${environment[@]}" "$@" 9>&-
}

refuse_to_be_open() {
    say "starting without TLS and without a token"
    mkdir -p "$work/volume"
    chown "$user" "$work/volume" # like an engine with a new volume
    if in_new_container "${entrypoint[@]}" >"$work/server.log" 2>&1; then
        fail "the server ran without TLS and without a token"
    fi
    grep -- --tls-cert "$work/server.log" || fail "the server does not say what is missing"
}

protect() {
    say "making certificates and a token"
    local tls=$volume_path/tls
    "$here/certificates.sh" "$work/tls" && mv "$work/tls" "$work/volume/tls"
    chown --recursive "$user" "$work/volume/tls"
    environment+=("LEADLINE_TLS_CERT=$tls/server.pem" "LEADLINE_TLS_KEY=$tls/server.key")
    in_new_container leadline tokens create --name image-test --role admin >"$work/volume/token" ||
        fail "no token can be made"
    chown "$user" "$work/volume/token"
    environment+=("LEADLINE_TARGET=https://localhost:50051" "LEADLINE_CA=$tls/ca.pem"
        "LEADLINE_TOKEN_FILE=$volume_path/token")
}

start_server() {
    local started=$SECONDS
    in_new_container "${entrypoint[@]}" >"$work/server.log" 2>&1 &
    launcher=$!
    until server=$(cat "/proc/$launcher/task/$launcher/children") && [[ -n ${server// /} ]]; do
        kill -0 "$launcher" || fail "cannot create the namespaces"
        sleep 0.1
    done
    server=${server// /}
    until in_image leadline health >"$work/health.log" 2>&1; do
        kill -0 "$launcher" 2>/dev/null || fail "the server ended before it served"
        ((SECONDS - started < serving_limit)) || fail "not serving after $serving_limit s: $(cat "$work/health.log")"
        sleep 1
    done
    say "serving after $((SECONDS - started)) s"
}

# Runs a command with the server's root, network and user.
in_image() {
    timeout --foreground "$command_limit" nsenter --target "$server" --mount --net --pid --root --wd \
        --setuid "${user%:*}" --setgid "${user#*:}" -- \
        env --ignore-environment "${environment[@]}" "$@"
}

train_an_epoch() {
    local started=$SECONDS
    say "training one epoch"
    in_image leadline train --dataset synthetic --epochs 1 --json >"$work/train.jsonl" ||
        fail "leadline train ended with $?: $(tail -n 3 "$work/train.jsonl")"
    cat "$work/train.jsonl"
    echo "trained in $((SECONDS - started)) s"
}

use_the_model() {
    say "predicting, and listing misclassified images"
    in_image leadline models --json >"$work/models.json"
    in_image python3 - <"$here/check_model.py" || fail "the predictions do not match the listing"
}

scrape_metrics() {
    say "scraping metrics"
    in_image python3 - <<-'PYTHON' >"$work/metrics"
		import os, ssl, urllib.request as r
		token = open(os.environ["LEADLINE_TOKEN_FILE"]).read().strip()
		request = r.Request("https://localhost:9464/metrics", headers={"Authorization": f"Bearer {token}"})
		context = ssl.create_default_context(cafile=os.environ["LEADLINE_CA"])
		print(r.urlopen(request, timeout=10, context=context).read().decode())
	PYTHON
    grep -E '^(grpc_server|leadline)' "$work/metrics" | grep -v _bucket
}

stop_server() {
    local started=$SECONDS status=0
    kill -s TERM "$server"
    (sleep "$stop_limit" && kill -KILL "$launcher") 2>/dev/null 9>&- &
    local watchdog=$!
    wait "$launcher" || status=$?
    kill "$watchdog" 2>/dev/null || true
    launcher=
    grep -E '"level": ?"(warning|error|critical)"' "$work/server.log" || true
    ((status == 0)) || fail "the server ended with $status after SIGTERM, in $((SECONDS - started)) s"
    say "stopped by SIGTERM in $((SECONDS - started)) s"
}

check_volume() {
    local files
    files=$(cd "$work/volume" && find . -type f -printf '%P %s\n' | sort)
    grep --quiet '\.checkpoint ' <<<"$files" || fail "no checkpoint is in the volume: $files"
    same "the owner of what is in the volume" \
        "$(find "$work/volume" -printf '%U:%G\n' | sort --unique)" "$user"
    echo "in the volume:"
    head -n 20 <<<"$files"
}

main "$@"
