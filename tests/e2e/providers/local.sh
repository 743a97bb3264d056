#!/usr/bin/env bash
# A real one-node Kubernetes from plain programs: etcd, kube-apiserver, kube-scheduler, kube-controller-manager, containerd,
# runc and the kubelet, in mount, network and process namespaces of its own. Nothing of the host's is touched, no port can be
# taken, and all of it ends with the command it was started for.
#
#   local.sh packages                 install what comes from Debian, or say what is missing
#   local.sh build                    build Kubernetes and containerd from their Go modules, once per version
#   local.sh with-cluster COMMAND...  start the cluster, run the command on it, take the cluster away (KEEP=1: when interrupted)
#   local.sh enter [COMMAND...]       from another terminal: a shell, or the command, inside a running cluster
#   local.sh restart-kubelet          on the cluster: SIGKILL the kubelet and start it again, after E2E_KUBELET_AWAY seconds
#
# `with-cluster` reads $E2E_DIR: images/*.tar are imported, logs/ receives each program's log. The command finds KUBECONFIG, kubectl,
# E2E_RESTART_KUBELET and E2E_ON_NODE (what a command begins with that is to run on the node; migctl is in its PATH) in its environment.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export E2E_DIR=${E2E_DIR:-$(cd "$here/../../.." && pwd)/target/e2e}
module=$here/../kubernetes
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mig-agent
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$module/go.mod")
bin=$cache/kubernetes-$version
programs=(kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet)
# Debian 12's is 1.6, which has no CDI.
containerd_module=$here/../containerd
containerd_version=$(awk '$1 == "github.com/containerd/containerd/v2" { print $2 }' "$containerd_module/go.mod")
containerd_bin=$cache/containerd-$containerd_version
containerd_programs=(containerd containerd-shim-runc-v2 ctr)
cluster=/run/mig-agent-e2e # inside the namespaces, where /run is the cluster's own
node=e2e-node
address=10.244.0.1
service=10.96.0.1 # of the API server, the first of its services' range

die() {
  echo "e2e: $*" >&2
  exit 1
}

packages() {
  [ "$(id -u)" = 0 ] || die "the local cluster needs root (namespaces, containers): run as root, or use PROVIDER=kind or existing"
  # program:package; the CNI plugins have no program in PATH
  local missing=() pair
  for pair in etcd:etcd-server runc:runc busybox:busybox-static iptables:iptables \
    openssl:openssl ip:iproute2 unshare:util-linux setpriv:util-linux pgrep:procps; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  [ ${#missing[@]} -eq 0 ] && return
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  command -v apt-get >/dev/null || die "missing, and no apt-get to install them: ${missing[*]}"
  echo "e2e: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Where systemd runs, Debian's etcd also starts as a service; it does not meet the cluster's own.
  mkdir -p "$E2E_DIR/logs"
  { apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"; } >"$E2E_DIR/logs/apt.log" 2>&1 ||
    { tail -n 20 "$E2E_DIR/logs/apt.log" >&2; die "failed to install ${missing[*]}"; }
}

build() {
  build_kubernetes
  build_containerd
}

build_kubernetes() {
  [ -d "$bin" ] && return
  local pins minor
  minor=${version#v1.}
  minor=${minor%%.*}
  pins="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1"
  pins+=" -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/component-base/version.gitTreeState=clean"
  echo "e2e: building Kubernetes $version into $bin (once; about ten minutes on two cores)"
  build_programs "$module" k8s.io/kubernetes/cmd "$bin" "$pins" "${programs[@]}"
}

build_containerd() {
  [ -d "$containerd_bin" ] && return
  local name=github.com/containerd/containerd/v2
  echo "e2e: building containerd $containerd_version into $containerd_bin (once; about two minutes on two cores)"
  build_programs "$containerd_module" $name/cmd "$containerd_bin" "-X $name/version.Version=$containerd_version" "${containerd_programs[@]}"
}

build_programs() { # module, where the commands are in it, folder, linker flags, names...
  command -v go >/dev/null || die "Kubernetes and containerd are built from their Go modules, and there is no 'go' (1.26 or newer) in PATH"
  local folder=$1 commands=$2 out=$3 flags=$4 name started
  shift 4
  mkdir -p "$out.partial"
  for name in "$@"; do
    started=$SECONDS
    (cd "$folder" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $flags" -o "$out.partial/$name" "$commands/$name") ||
      die "failed to build $name; what is built so far is kept"
    echo "e2e:   $name $((SECONDS - started)) s"
  done
  mv "$out.partial" "$out"
}

# --- outside the namespaces -----------------------------------------------------------------------------------------------

remove_cgroups() { # of this run, and what a killed one may have left; a cgroup in use refuses
  find /sys/fs/cgroup -depth -type d -path '*/mig-agent-e2e-*' -exec rmdir {} + 2>/dev/null || true
}

with_cluster() {
  packages
  build
  remove_cgroups
  trap remove_cgroups EXIT
  export E2E_CGROUP=mig-agent-e2e-$$
  # The last process to die takes the cluster with it: this shell -> unshare (pdeathsig) -> the namespace's first process
  # (--kill-child) -> everything in it. `exec` in the inner shell makes the number that it writes unshare's own.
  # shellcheck disable=SC2016 # expanded by the inner shell
  setpriv --pdeathsig KILL bash -c 'echo $$ >"$E2E_DIR/unshare.pid"; exec "$@"' - \
    unshare --mount --net --pid --fork --kill-child --mount-proc "${BASH_SOURCE[0]}" node "$@"
}

enter() {
  local unshare first
  unshare=$(cat "$E2E_DIR/unshare.pid" 2>/dev/null) || unshare=none
  first=$(pgrep -P "$unshare" 2>/dev/null) || die "no cluster is running; start one with KEEP=1"
  [ $# -gt 0 ] || set -- bash
  # shellcheck disable=SC2016 # expanded by the inner shell
  exec nsenter --target "$first" --mount --net --pid --wd="$PWD" bash -c '. /run/mig-agent-e2e/environment; exec "$@"' - "$@"
}

# --- inside ---------------------------------------------------------------------------------------------------------------

start() { # name, command...: in the background, logging
  local name=$1
  shift
  setsid "$@" >>"$E2E_DIR/logs/$name.log" 2>&1 </dev/null &
  echo $! >"$cluster/$name.pid"
  disown # a kubelet killed on purpose is no news
}

wait_for() { # seconds, what, command...
  local deadline=$((SECONDS + $1)) what=$2 log
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $deadline ]; then
      for log in "$E2E_DIR"/logs/*.log; do
        printf '\n==> %s\n' "$log"
        tail -n 8 "$log"
      done >&2
      die "gave up waiting for $what"
    fi
    sleep 0.2
  done
}

certificate() { # name, subject, extensions
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$cluster/$1.key" -out "$cluster/$1.csr" -subj "$2"
  openssl x509 -req -in "$cluster/$1.csr" -CA "$cluster/ca.crt" -CAkey "$cluster/ca.key" -CAcreateserial -days 2 \
    -extfile <(echo "$3") -out "$cluster/$1.crt"
}

kubeconfig() { # name, subject
  certificate "$1" "$2" extendedKeyUsage=clientAuth
  cat >"$cluster/$1.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: "https://127.0.0.1", certificate-authority: $cluster/ca.crt}}]
users: [{name: $1, user: {client-certificate: $cluster/$1.crt, client-key: $cluster/$1.key}}]
contexts: [{name: e2e, context: {cluster: e2e, user: $1}}]
current-context: e2e
K
}

credentials() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$cluster/service-account.key"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$cluster/ca.key" -out "$cluster/ca.crt" \
    -subj /CN=e2e-ca -days 2
  certificate server /CN=kube-apiserver "subjectAltName=IP:127.0.0.1,IP:$address,IP:$service,DNS:kubernetes.default.svc"
  kubeconfig admin /O=system:masters/CN=admin
  kubeconfig kubelet "/O=system:nodes/CN=system:node:$node"
  kubeconfig scheduler /CN=system:kube-scheduler
  kubeconfig controller-manager /CN=system:kube-controller-manager
}

prepare_node() {
  # What the programs write below their default folders is seen only in here, and gone with it.
  # Shared, as on a host with systemd: mounts with HostToContainer propagation ask for it. None of it reaches the host.
  local folder
  mount --make-rshared /
  mount -t tmpfs tmpfs /run
  mkdir -p "$cluster/net.d"
  # In a container it is a mount of its own, and not seen through the one over its folder.
  cp /etc/hosts "$cluster/hosts"
  for folder in /etc /var/lib /var/log; do
    mkdir -p "/run/written$folder/upper" "/run/written$folder/work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=/run/written$folder/upper,workdir=/run/written$folder/work" $folder
  done
  cp "$cluster/hosts" /etc/hosts
  mkdir -p /var/lib/kubelet
  mount -t tmpfs tmpfs /var/lib/kubelet
  # The pods' bridge, made early, is also the node's own address: the kubelet wants one that is not the loopback's.
  ip link set lo up
  # Without an address of its own a bridge takes the lowest of its ports', another one as pods come and go, and pods that know
  # the old one reach nobody, and are reached by no probe, for half a minute.
  ip link add cni0 address 02:00:0a:f4:00:01 type bridge
  ip address add $address/24 dev cni0
  # Nothing here routes services; the only one is the API server's, which listens at its address itself.
  ip address add $service/32 dev cni0
  ip link set cni0 up
  # All pods' cgroups go below one, to be removed afterwards. cgroup v1 has one tree for each controller, v2 one for all.
  local tree
  for tree in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    [ -e "$tree/cgroup.procs" ] && mkdir -p "$tree/$E2E_CGROUP"
  done
}

configure_containerd() {
  cat >"$cluster/net.d/10-bridge.conflist" <<K
{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}]}
K
  # The runtime is plain runc: what a container gets of a GPU comes from the kubelet's answer or from a CDI spec.
  cat >"$cluster/containerd.toml" <<K
version = 3
root = "/run/containerd-root"
state = "/run/containerd"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/mig-agent-e2e/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  # CDI cannot be switched off since 2.3.
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$cluster/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
K
}

configure_kubelet() {
  # failCgroupV1: this kubelet would refuse a machine with cgroup v1. Images can't be pulled again, so none is collected.
  # A status every second, so that a test sees capacity change about when it does.
  cat >"$cluster/kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {x509: {clientCAFile: $cluster/ca.crt}, webhook: {enabled: false}, anonymous: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$E2E_CGROUP
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
evictionHard: {memory.available: 1Mi, nodefs.available: 1%}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 1s
resolvConf: ""
volumePluginDir: /var/lib/kubelet/volume-plugins
K
}

start_kubelet() {
  start kubelet "$bin/kubelet" --config="$cluster/kubelet.yaml" --kubeconfig="$cluster/kubelet.kubeconfig" \
    --hostname-override=$node --node-ip=$address --v=2
}

restart_kubelet() {
  local pid
  pid=$(cat "$cluster/kubelet.pid") || die "restart-kubelet works inside the cluster only"
  kill -KILL "$pid"
  wait_for 10 "the kubelet's end" bash -c "! kill -0 $pid"
  sleep "${E2E_KUBELET_AWAY:-0}"
  start_kubelet
}

start_cluster() {
  local started=$SECONDS image
  prepare_node
  credentials 2>"$E2E_DIR/logs/openssl.log"
  configure_containerd
  configure_kubelet
  start etcd etcd --data-dir "$cluster/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=443 --advertise-address=$address \
    --tls-cert-file="$cluster/server.crt" --tls-private-key-file="$cluster/server.key" --client-ca-file="$cluster/ca.crt" \
    --service-account-key-file="$cluster/service-account.key" --service-account-signing-key-file="$cluster/service-account.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range=10.96.0.0/16 \
    --authorization-mode=Node,RBAC --allow-privileged=true --enable-admission-plugins=NodeRestriction --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$cluster/admin.crt" --kubelet-client-key="$cluster/admin.key"
  start containerd containerd -c "$cluster/containerd.toml"
  wait_for 60 containerd ctr version
  for image in "$E2E_DIR"/images/*.tar; do
    ctr -n k8s.io images import "$image" >>"$E2E_DIR/logs/images.log"
  done
  wait_for 120 "the API server" kubectl get --raw /readyz
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$cluster/scheduler.kubeconfig" --leader-elect=false
  start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$cluster/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials=true --root-ca-file="$cluster/ca.crt" \
    --service-account-private-key-file="$cluster/service-account.key"
  start_kubelet
  wait_for 60 "the node" kubectl wait --for=condition=Ready node/$node --timeout=1s
  # Pods are refused until the controller manager has made the namespace's service account.
  wait_for 60 "the service accounts" kubectl get serviceaccount default
  echo "e2e: Kubernetes $version on containerd $containerd_version is up after $((SECONDS - started)) s"
}

on_node() { # the first process of the namespaces
  export KUBECONFIG=$cluster/admin.kubeconfig PATH=$bin:$containerd_bin:$(dirname "${E2E_MIGCTL_PROGRAM:-/usr/bin/migctl}"):$PATH E2E_ON_NODE=env E2E_RESTART_KUBELET="$here/local.sh restart-kubelet"
  start_cluster
  declare -px KUBECONFIG PATH "${!E2E_@}" >"$cluster/environment"
  local code=0
  "$@" || code=$?
  if [ "${KEEP:-}" = 1 ]; then
    echo "e2e: the cluster stays until this is interrupted; from another terminal: tests/e2e/providers/local.sh enter"
    trap 'exit $code' INT TERM
    sleep infinity &
    wait
  fi
  exit $code
}

verb=${1:-}
[ $# -gt 0 ] && shift
case $verb in
  packages) packages ;;
  build) build ;;
  with-cluster) with_cluster "$@" ;;
  enter) enter "$@" ;;
  restart-kubelet) restart_kubelet ;;
  node) on_node "$@" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
