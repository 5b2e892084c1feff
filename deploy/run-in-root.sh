#!/usr/bin/env bash
# Runs a command in an image's unpacked root, confined like the container of compose.yaml. The root
# is read-only, /tmp is in memory, only the volume is persistent, and the command cannot gain
# privileges. image-test.sh uses it instead of a container engine. Start it in new namespaces:
#
#   unshare --mount --net --pid --fork deploy/run-in-root.sh ROOT VOLUME PATH UID:GID COMMAND...
#
# VOLUME is a folder of the host; PATH is its path in the image.
set -euo pipefail

root=$1
volume=$2
volume_path=$3
user=$4
shift 4

mount --make-rprivate /
ip link set lo up

mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=1777,size=1g,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,size=64k,nosuid tmpfs "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev tmpfs "$root/dev/shm"
mount --bind "$volume" "$root$volume_path"
mount -o remount,bind,ro "$root"

exec setpriv --no-new-privs chroot --userspec="$user" --groups="${user#*:}" "$root" "$@"
