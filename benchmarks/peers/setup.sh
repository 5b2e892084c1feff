#!/usr/bin/env bash
# Installs the peers that the benchmarks compare with Leadline, each into its own environment
# outside the project. It needs Python 3.11 and h2load of Debian 12:
#
#   apt-get install python3.11-venv libpython3.11 nghttp2-client
#
# LEADLINE_BENCHMARKS_CACHE sets the folder, as in benchmarks/harness/cache.py.
set -euo pipefail

project="$(cd "$(dirname "$0")/../.." && pwd)"
cache="${LEADLINE_BENCHMARKS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/leadline-benchmarks}"
# Triton's Python backend is linked against the system's libpython.
python=/usr/bin/python3.11
torch="$(grep '^torch==' "$project/constraints.txt")"
onnxruntime="$(grep '^onnxruntime==' "$project/constraints.txt")"

for command in "$python" h2load taskset; do
    command -v "$command" >/dev/null || {
        echo "setup.sh: $command is missing; on Debian:" \
            "apt-get install python3.11-venv libpython3.11 nghttp2-client util-linux" >&2
        exit 1
    }
done

install() { # install NAME REQUIREMENT...
    local folder="$cache/$1"
    shift
    [ -e "$folder/.installed" ] && return
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    touch "$folder/.installed"
}

mkdir -p "$cache"
# The same ONNX Runtime as Leadline's.
install triton nvidia-pytriton==0.7.0 "$onnxruntime" "numpy<3"
# The custom runtime loads Leadline's checkpoints with Leadline's code and the same torch. Its other
# requirements are those of `leadline.models`.
install mlserver mlserver==1.7.1 "$torch" llvmlite onnx pillow safetensors
echo "installed in $cache"
