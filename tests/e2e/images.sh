#!/usr/bin/env bash
# Writes the suite's images, made from local files, as docker archives: no registry, no Docker.
#
#   images.sh FOLDER MIG_AGENT [LIBRARY...]   MIG_AGENT: the binary; LIBRARY: what it will load, whose dependencies it needs too
set -euo pipefail

out=$1 agent=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac

image() { # file name, image name, folder with its files, entrypoint as JSON
  local files=$3 archive=$work/archive digest
  rm -rf "$archive"
  mkdir "$archive"
  # The same files give the same image, byte for byte.
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$files" -cf "$archive/layer.tar" .
  digest=$(sha256sum "$archive/layer.tar" | cut -d' ' -f1)
  cat >"$archive/config.json" <<K
{"architecture": "$architecture", "os": "linux", "config": {"Env": ["PATH=/bin"], "Entrypoint": $4},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]}}
K
  echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$2\"], \"Layers\": [\"layer.tar\"]}]" >"$archive/manifest.json"
  tar -C "$archive" -cf "$out/$1.tar" config.json layer.tar manifest.json
}

mkdir -p "$out"

mkdir -p "$work/busybox/bin"
cp "$(command -v busybox)" "$work/busybox/bin/busybox"
for applet in sh env sleep; do ln -s busybox "$work/busybox/bin/$applet"; done
image busybox localhost/mig-agent-e2e/busybox:1 "$work/busybox" '[]'
image pause localhost/mig-agent-e2e/pause:1 "$work/busybox" '["/bin/sleep", "infinity"]'

# The binary, the loader and the C library's files that it and the driver's library name: what any glibc base image has.
mkdir -p "$work/agent"
cp "$agent" "$work/agent/mig-agent"
ldd "$agent" "$@" | awk '$2 == "=>" { print $3 } $1 ~ /^\// && $2 ~ /^\(/ { print $1 }' | sort -u | while read -r file; do
  mkdir -p "$work/agent$(dirname "$file")"
  cp -L "$file" "$work/agent$file"
done
image mig-agent localhost/mig-agent-e2e/mig-agent:1 "$work/agent" '["/mig-agent"]'
