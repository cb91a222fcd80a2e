# Starts, stops and awaits the processes of a cluster. Each leads a process group of its own; its command, process id
# and log are kept below $STATE, so that it can be stopped and started again.

start() { # NAME COMMAND…: in the background, beside the cluster
  local name=$1; shift
  printf '%q ' $(beside) "$@" >"$STATE/command/$name"
  launch "$name"
}
launch() { # NAME
  local command
  command=$(cat "$STATE/command/$1")
  # Descriptor 9 is the build's lock; a server must not hold it.
  eval "exec setsid $command" >>"$STATE/log/$1" 2>&1 </dev/null 9>&- &
  echo $! >"$STATE/pid/$1"
}
alive() { # NAME
  [ -e "$STATE/pid/$1" ] && kill -0 "$(cat "$STATE/pid/$1")" 2>/dev/null
}
signal() { # SIGNAL NAME: to the whole group; one that is gone is fine
  [ ! -e "$STATE/pid/$2" ] || kill "-$1" -- "-$(cat "$STATE/pid/$2")" 2>/dev/null || true
}
known() { [ -e "$STATE/command/$1" ] || die "no component is called $1; there are: $(ls "$STATE/command" | tr '\n' ' ')"; }
stop() { # NAME: returns when it is gone; kills what does not go in 15 s
  known "$1"
  signal TERM "$1"
  for _ in $(seq 150); do alive "$1" || break; sleep 0.1; done
  signal KILL "$1"
  rm -f "$STATE/pid/$1"
}
restart() { # NAME: an API server is awaited, the others are not
  known "$1"
  ! alive "$1" || die "$1 runs already"
  launch "$1"
  [ "$1" != kube-apiserver ] || await "$1" 90 kubectl_admin get --raw /readyz
}

await() { # COMPONENT SECONDS COMMAND…: fails early when the component has died
  local component=$1 end=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    alive "$component" || { tail -20 "$STATE/log/$component" >&2; die "$component ended, its log is above"; }
    [ $SECONDS -lt $end ] || { tail -20 "$STATE/log/$component" >&2; die "$component did not come up, its log is above"; }
    sleep 0.2
  done
}

# Below the usual range of outgoing connections, so that none of these takes a port before its server does.
free_ports() { # COUNT
  python3 - "$1" <<'PYTHON'
import random, socket, sys
held = []
for port in random.sample(range(20000, 32000), 2000):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
    except OSError:
        continue
    held.append(s)
    if len(held) == int(sys.argv[1]):
        break
print(*(s.getsockname()[1] for s in held))
PYTHON
}

is_up() { [ -e "$STATE/kubeconfig/admin" ] || die "no cluster is up in $STATE; run '$0 api-up' or '$0 node-up' first"; }
claim() { # The state folder is made once; whoever comes second is told.
  mkdir -p "$(dirname "$STATE")"
  mkdir -m 700 "$STATE" 2>/dev/null || die "something is already up in $STATE; run '$0 down' first, or set TOOLGATE_TEST_STATE"
  mkdir "$STATE"/{command,log,pid,pki,kubeconfig}
  trap 'code=$?; trap - EXIT; [ $code = 0 ] || down; exit $code' EXIT
  trap 'exit 130' HUP INT TERM
}
follow() { # --follow: until standard input ends, then down
  case $1 in
    '') ;;
    --follow) trap down EXIT; exec >&-; cat >/dev/null || true ;;
    *) usage ;;
  esac
}

down() {
  local name mount
  [ -e "$STATE" ] || return 0
  # First what would start things again, then the containers, then the rest.
  for name in kubelet kube-controller-manager kube-scheduler; do [ ! -e "$STATE/pid/$name" ] || stop "$name"; done
  end_containers
  for name in "$STATE"/pid/*; do signal TERM "$(basename "$name")"; done
  for name in "$STATE"/pid/*; do [ ! -e "$name" ] || stop "$(basename "$name")"; done
  { grep -o " $STATE/[^ ]*" /proc/mounts || true; } | sort -r | while read -r mount; do umount -l "$mount" || true; done
  remove_node
  rm -rf "$STATE"
}
