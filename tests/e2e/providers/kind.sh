#!/usr/bin/env bash
# A one-node kind cluster, made and filled by the commands that docs/kind.md gives. Verbs, files and environment as in local.sh; needs
# `kind`, `docker` and `kubectl`.
#
#   kind.sh packages | build | with-cluster COMMAND... | restart-kubelet
#
# KIND_NODE_IMAGE picks the Kubernetes version (kind's own default otherwise). KEEP=1 keeps the cluster.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
export E2E_DIR=${E2E_DIR:-$root/target/e2e}
# Read by every `kind` command.
export KIND_CLUSTER_NAME=mig-agent-e2e
node=$KIND_CLUSTER_NAME-control-plane

die() {
  echo "e2e: $*" >&2
  exit 1
}

packages() {
  local program
  for program in kind docker kubectl busybox; do
    command -v "$program" >/dev/null || die "PROVIDER=kind needs '$program' in PATH"
  done
  docker info >/dev/null 2>&1 || die "PROVIDER=kind needs a running Docker: 'docker info' fails"
  if [ -n "${KIND_NODE_IMAGE:-}" ]; then
    docker image inspect "$KIND_NODE_IMAGE" >/dev/null 2>&1 || docker pull --quiet "$KIND_NODE_IMAGE" >/dev/null 2>&1 ||
      die "PROVIDER=kind: the node image $KIND_NODE_IMAGE (KIND_NODE_IMAGE) is neither in Docker nor can it be pulled"
  fi
}

documented() { # the command of docs/kind.md that begins so
  local command
  command=$(sed -n "s/^\\$ \\($1.*\\)/\\1/p" "$root/docs/kind.md" | head -n 1)
  [ -n "$command" ] || die "docs/kind.md has no command that begins with '$1'"
  echo "$command"
}

take_away() {
  [ "${KEEP:-}" = 1 ] || kind delete cluster >>"$E2E_DIR/logs/kind.log" 2>&1
}

with_cluster() {
  packages
  trap take_away EXIT
  export KUBECONFIG=$E2E_DIR/kubeconfig E2E_RESTART_KUBELET="$here/kind.sh restart-kubelet" E2E_ON_NODE="docker exec -i $node"
  local image
  # A status every second, so that a test sees capacity change about when it does.
  cat >"$E2E_DIR/kind.yaml" <<K
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    nodeStatusUpdateFrequency: 1s
    imageGCHighThresholdPercent: 100
K
  echo "e2e: $(documented 'kind create')"
  # shellcheck disable=SC2046 # a command and its words
  $(documented 'kind create') --config "$E2E_DIR/kind.yaml" --wait 120s ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"} ||
    die "kind could not create the cluster (without access to a registry: KIND_NODE_IMAGE names a node image that is in Docker)"
  for image in "$E2E_DIR"/images/{mig-agent,fake-nvml}.tar; do
    docker load --quiet --input "$image" >>"$E2E_DIR/logs/images.log"
  done
  echo "e2e: $(documented 'kind load')"
  $(documented 'kind load') >>"$E2E_DIR/logs/images.log" 2>&1
  kind load image-archive "$E2E_DIR/images/busybox.tar" >>"$E2E_DIR/logs/images.log" 2>&1
  [ -z "${E2E_MIGCTL_PROGRAM:-}" ] || docker cp --quiet "$E2E_MIGCTL_PROGRAM" $node:/usr/local/bin/migctl
  "$@"
}

restart_kubelet() {
  docker exec $node systemctl kill --signal=KILL kubelet
  docker exec $node systemctl restart kubelet
}

verb=${1:-}
[ $# -gt 0 ] && shift
case $verb in
  packages) packages ;;
  build) ;;
  with-cluster) with_cluster "$@" ;;
  restart-kubelet) restart_kubelet ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
