#!/usr/bin/env bash
# Writes the images of the suite's own pods and of the local cluster's pause containers, made from local files, as docker archives: no
# registry, no Docker. The agent's and the fake driver's are made by `make image`.
#
#   images.sh FOLDER
set -euo pipefail

out=$1
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
{"architecture": "$architecture", "os": "linux", "config": {"Env": ["PATH=/bin:/usr/bin"], "Entrypoint": $4},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]}}
K
  echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$2\"], \"Layers\": [\"layer.tar\"]}]" >"$archive/manifest.json"
  tar -C "$archive" -cf "$out/$1.tar" config.json layer.tar manifest.json
}

mkdir -p "$out"

mkdir -p "$work/busybox/bin"
cp "$(command -v busybox)" "$work/busybox/bin/busybox"
for applet in sh env sleep cat ls wget nc; do ln -s busybox "$work/busybox/bin/$applet"; done
image busybox localhost/mig-agent-e2e/busybox:1 "$work/busybox" '[]'
image pause localhost/mig-agent-e2e/pause:1 "$work/busybox" '["/bin/sleep", "infinity"]'
