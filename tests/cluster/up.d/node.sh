# One real node beside the control plane: containerd, kubelet, kube-proxy and DNS, in a network namespace without a
# way out. There is one such namespace on a machine, hence one node at a time.

NETNS=toolgate-test
NODE_IP=10.200.0.1 # Known inside the namespace alone.
DNS_IP=10.96.0.10

beside() { # What to put before a command so that it runs where the cluster is reached.
  [ ! -e "$STATE/netns" ] || echo "nsenter --net=/run/netns/$NETNS"
}

node_up() {
  [ "$(id -u)" = 0 ] || die "a node needs root"
  build_node
  [ ! -e /run/netns/$NETNS ] || die "a node is up already in network namespace $NETNS; run '$0 down' with its TOOLGATE_TEST_STATE, or 'ip netns del $NETNS' if it is a leftover"
  claim
  ip netns add $NETNS
  touch "$STATE/netns"
  local inside
  inside=$(beside)
  $inside ip link set lo up
  $inside ip addr add $NODE_IP/32 dev lo
  $inside ip route add $SERVICE_CIDR dev lo src $NODE_IP # Lets the node itself reach Services.
  $inside sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
  control_plane $NODE_IP 0.0.0.0 6443 2379 2380 10257
  start kube-scheduler kube-scheduler --kubeconfig "$STATE/kubeconfig/scheduler" --leader-elect=false --bind-address 127.0.0.1 \
    --authentication-kubeconfig "$STATE/kubeconfig/scheduler" --authorization-kubeconfig "$STATE/kubeconfig/scheduler"
  container_runtime
  kubelet_and_proxy
  await kubelet 90 kubectl_admin wait --for=condition=Ready node/node --timeout=1s
  dns
  echo "export KUBECONFIG=$STATE/kubeconfig/admin # inside: run commands with '$0 exec'"
}

container_runtime() {
  mkdir -p "$STATE"/{containerd,containerd-run,cni}
  cat >"$STATE/cni/10-bridge.conflist" <<JSON
{"cniVersion":"1.0.0","name":"test","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,"promiscMode":false,
  "ipam":{"type":"host-local","dataDir":"$STATE/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
JSON
  cat >"$STATE/containerd.toml" <<TOML
version = 3
root = "$STATE/containerd"
state = "$STATE/containerd-run"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "$STATE/containerd.sock"
[ttrpc]
  address = "$STATE/containerd.sock.ttrpc"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "toolgate.test/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true # Machines without CAP_SYS_RESOURCE may not lower it.
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["$CACHE/cni-$CNI_PLUGINS"]
  conf_dir = "$STATE/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "$CACHE/runc-$RUNC/runc"
  SystemdCgroup = false
TOML
  start containerd containerd --config "$STATE/containerd.toml"
  await containerd 30 containers version
  image toolgate.test/pause:1 /pause "$CACHE/pause-$PAUSE/pause"
}
containers() { ctr -a "$STATE/containerd.sock" -n k8s.io "$@"; }

kubelet_and_proxy() {
  cat >"$STATE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
address: $NODE_IP
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$STATE/containerd.sock
resolvConf: ""
podLogsDir: $STATE/pod-logs
volumePluginDir: $STATE/volume-plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "50Mi", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
registerNode: true
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
YAML
  start kubelet kubelet --config "$STATE/kubelet.yaml" --kubeconfig "$STATE/kubeconfig/kubelet" --hostname-override node \
    --root-dir "$STATE/kubelet" --node-ip $NODE_IP
  cat >"$STATE/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $POD_CIDR
hostnameOverride: node
clientConnection: {kubeconfig: $STATE/kubeconfig/proxy}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  start kube-proxy kube-proxy --config "$STATE/proxy.yaml"
}

dns() { # CoreDNS beside the node, reached at the usual Service address.
  cat >"$STATE/Corefile" <<CORE
.:53 {
  bind $NODE_IP
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/kubeconfig/admin test
  }
  cache 5
}
CORE
  start coredns coredns -conf "$STATE/Corefile"
  kubectl_admin apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: $DNS_IP, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: [$NODE_IP]}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
YAML
}

image() { # NAME ENTRYPOINT[,ARG…] PATH[:DEST]…
  [ -S "$STATE/containerd.sock" ] || die "no node is up in $STATE; run '$0 node-up' first"
  local name=$1 tar=$STATE/image.$$.tar; shift
  python3 "$HERE/image.py" "$name" "$tar" "$@"
  containers images import --local "$tar" >/dev/null
  rm -f "$tar"
}

end_containers() {
  local id process
  [ -S "$STATE/containerd.sock" ] || return 0
  for process in $(shims); do kill -9 "$process" 2>/dev/null || true; done
  for id in $(containers containers ls -q 2>/dev/null); do
    for process in $(grep -ls "/$id\$" /proc/[0-9]*/cgroup | cut -d/ -f3); do kill -9 "$process" 2>/dev/null || true; done
  done
}
shims() { # containerd's helpers that belong to this cluster
  local process
  for process in /proc/[0-9]*; do
    ! tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q "containerd-shim-runc-v2 .*$STATE/containerd.sock" || echo "${process#/proc/}"
  done
}

remove_node() {
  [ -e "$STATE/netns" ] || return 0
  ip netns del $NETNS 2>/dev/null || true
  local hierarchy
  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ ! -d "$hierarchy/kubepods" ] || find "$hierarchy/kubepods" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
