#!/usr/bin/env bash
# Build the images of the given tools: containers/build.sh core scvi typist tumour micro evidence report
# ENGINE docker|podman|buildah, BASE the base image, PREFIX and TAG the name (nextflow.config has the same defaults).
set -euo pipefail
cd "$(dirname "$0")"

engine="${ENGINE:-docker}"
prefix="${PREFIX:-scresist}"
tag="${TAG:-$(sed -n "s/^ *version = '\(.*\)'/\1/p" ../nextflow.config)}"
command -v "$engine" >/dev/null || { echo "$engine is not on PATH. Mend: install it, or make images ENGINE=podman" >&2; exit 1; }

arguments=()
[[ -n "${BASE:-}" ]] && arguments+=(--build-arg "BASE=$BASE")
for tool in "$@"; do
    [[ -f "$tool/requirements.txt" ]] || { echo "containers/$tool/requirements.txt is missing. Mend: make lock" >&2; exit 1; }
    echo "[images] $prefix/$tool:$tag"
    DOCKER_BUILDKIT="${DOCKER_BUILDKIT:-0}" "$engine" build --file Dockerfile --build-arg "TOOL=$tool" "${arguments[@]}" --tag "$prefix/$tool:$tag" .
done
