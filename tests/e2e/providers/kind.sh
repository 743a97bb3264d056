#!/usr/bin/env bash
# A one-node kind cluster. Verbs, files and environment as in local.sh; needs `kind`, `docker` and `kubectl`.
#
#   kind.sh packages | build | with-cluster COMMAND... | restart-kubelet
#
# KIND_NODE_IMAGE picks the Kubernetes version (kind's own default otherwise). KEEP=1 keeps the cluster.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export E2E_DIR=${E2E_DIR:-$(cd "$here/../../.." && pwd)/target/e2e}
cluster=mig-agent-e2e
node=$cluster-control-plane

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
}

take_away() {
  [ "${KEEP:-}" = 1 ] || kind delete cluster --name $cluster >>"$E2E_DIR/logs/kind.log" 2>&1
}

with_cluster() {
  packages
  trap take_away EXIT
  export KUBECONFIG=$E2E_DIR/kubeconfig E2E_RESTART_KUBELET="$here/kind.sh restart-kubelet"
  local image
  cat >"$E2E_DIR/kind.yaml" <<K
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    labels: {nvidia.com/gpu.present: "true"}
    extraMounts: [{hostPath: "$E2E_DIR/node", containerPath: /var/lib/mig-agent-e2e}]
kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    nodeStatusUpdateFrequency: 1s
    imageGCHighThresholdPercent: 100
K
  kind create cluster --name $cluster --config "$E2E_DIR/kind.yaml" --wait 120s ${KIND_NODE_IMAGE:+--image "$KIND_NODE_IMAGE"}
  # The tests' pods tolerate the control plane's taint, the agent's don't.
  kubectl taint nodes --all node-role.kubernetes.io/control-plane- >/dev/null 2>&1 || true
  for image in "$E2E_DIR"/images/{busybox,mig-agent}.tar; do
    kind load image-archive "$image" --name $cluster
  done
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
