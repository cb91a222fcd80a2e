# Builds what a tier needs into $CACHE, from the modules beside this folder and from pinned public ones.
# A program appears under its name only when it is whole, and two builds at once wait for each other.

need() { # PROGRAM HINT
  command -v "$1" >/dev/null || die "needs $1: $2"
}
need_go() {
  need go "install Go 1.26 or newer, or name a folder with etcd, kube-apiserver and kubectl in KUBEBUILDER_ASSETS"
  local found
  found=$(cd "$HERE/pause" && GOTOOLCHAIN=local go env GOVERSION)
  [ "$(printf '%s\n' go1.26 "$found" | sort -V | head -1)" = go1.26 ] || die "needs Go 1.26 or newer, found $found"
}

build_module() { # NAME VERSION [go build flags…]: the module of that name beside this script
  local name=$1 to=$CACHE/$1-$2; shift 2
  [ ! -x "$to/$name" ] || return 0
  need_go
  say "building $(basename "$to")"
  mkdir -p "$to"
  (cd "$HERE/$name" && CGO_ENABLED=0 go build -trimpath "$@" -o "$to/.$name" .)
  mv "$to/.$name" "$to/$name"
}
build_public() { # FOLDER VERSION PROGRAM PACKAGE [go install flags…]
  local to=$CACHE/$1-$2 version=$2 program=$3 package=$4; shift 4
  [ ! -x "$to/$program" ] || return 0
  need_go
  say "building $program $version"
  rm -rf "$to/.new"
  mkdir -p "$to/.new"
  GOBIN=$to/.new go install -trimpath -ldflags '-s -w' "$@" "$package@$version"
  mv "$to/.new/$program" "$to/$program"
  rmdir "$to/.new"
}

exclusively() { # COMMAND…: one build at a time
  mkdir -p "$CACHE"
  (flock 9 && "$@") 9>"$CACHE/lock"
}
build_api() { exclusively build_api_now; }
build_node() { exclusively build_node_now; }

# Programs in KUBEBUILDER_ASSETS come first; what is missing there is built.
given() { [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; }

build_api_now() {
  need openssl "it makes the certificates (apt-get install openssl)"
  need python3 "apt-get install python3"
  need setsid "apt-get install util-linux"
  local p=k8s.io/component-base/version component missing=
  given etcd || build_module etcd $ETCD -ldflags '-s -w'
  for component in kube-apiserver kube-controller-manager kubectl; do given $component || missing=1; done
  [ -z "$missing" ] || build_kubernetes
}
build_kubernetes() {
  local p=k8s.io/component-base/version component to=$CACHE/kubernetes-$KUBERNETES
  [ -x "$to/kubernetes" ] || say "Kubernetes takes about 5 minutes on 2 idle cores, once"
  build_module kubernetes $KUBERNETES \
    -ldflags "-s -w -X $p.gitVersion=$KUBERNETES -X $p.gitMajor=1 -X $p.gitMinor=36 -X $p.gitTreeState=clean"
  for component in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -sfn kubernetes "$to/$component"
  done
}

build_node_now() {
  need ip "apt-get install iproute2"
  need nft "kube-proxy writes its rules with it (apt-get install nftables)"
  need nsenter "apt-get install util-linux"
  need gcc "it builds runc (apt-get install gcc)"
  need pkg-config "it finds libseccomp (apt-get install pkg-config)"
  pkg-config --exists libseccomp || die "needs libseccomp's headers (apt-get install libseccomp-dev)"
  build_api_now
  build_kubernetes
  build_module pause $PAUSE -ldflags '-s -w'
  local program cni=github.com/containernetworking/plugins/plugins tags='no_btrfs no_devmapper no_zfs no_cri_nri'
  export CGO_ENABLED=0
  for program in containerd containerd-shim-runc-v2 ctr; do
    build_public containerd $CONTAINERD $program github.com/containerd/containerd/v2/cmd/$program -tags "$tags"
  done
  build_public coredns $COREDNS coredns github.com/coredns/coredns
  for program in main/bridge main/loopback meta/portmap ipam/host-local; do
    build_public cni $CNI_PLUGINS "${program#*/}" $cni/$program
  done
  # A distribution's runc may be too old for what containerd 2 asks of it: ours is pinned too.
  CGO_ENABLED=1 build_public runc $RUNC runc github.com/opencontainers/runc -tags seccomp
}
