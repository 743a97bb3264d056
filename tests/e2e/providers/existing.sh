#!/usr/bin/env bash
# The cluster that KUBECONFIG names, as it is: with the agent on a node, and nobody else using the node's slices.
#
#   existing.sh packages | build | with-cluster COMMAND...
#
# E2E_SCENE              what the node's GPUs hold, in the form of `fake-nvml show -o json`
# E2E_IMAGE              an image with sh, env and sleep (default: busybox:1.36)
# E2E_RESTART_KUBELET    a command that kills and starts that node's kubelet; without it the test that needs it is skipped
set -euo pipefail

die() {
  echo "e2e: $*" >&2
  exit 1
}

case ${1:-} in
  packages)
    [ -n "${KUBECONFIG:-}" ] || die "PROVIDER=existing needs KUBECONFIG: the cluster to test on"
    [ -r "${E2E_SCENE:-}" ] || die "PROVIDER=existing needs E2E_SCENE: a file that says what the node's GPUs hold"
    ;;
  build) ;;
  with-cluster)
    shift
    export E2E_IMAGE=${E2E_IMAGE:-busybox:1.36}
    exec "$@"
    ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
