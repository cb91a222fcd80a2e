# etcd, kube-apiserver and kube-controller-manager: certificates, one token for each component, and their flags.

SERVICE_CIDR=10.96.0.0/16
POD_CIDR=10.244.0.0/16

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
certificate() { # NAME SUBJECT [SUBJECT_ALTERNATIVE_NAMES]: signed by the cluster's CA
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
    ${3:+-extfile <(echo "subjectAltName=$3")} 2>/dev/null
}
identity() { # NAME USER GROUP: a line for the API server's table of tokens
  local token
  token=$(openssl rand -hex 16)
  echo "$token,$2,$1,\"$3\"" >>tokens.csv
  echo "$token" >"token-$1"
}
credentials() ( # IP
  cd "$STATE/pki"
  umask 077
  key ca
  openssl req -x509 -new -key ca.key -subj /CN=toolgate-test-ca -days 30 -out ca.crt 2>/dev/null
  local names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
  certificate server /CN=kube-apiserver "$names,DNS:kubernetes.default.svc.cluster.local,IP:10.96.0.1,IP:127.0.0.1,IP:$1"
  certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  identity admin kubernetes-admin system:masters
  identity controller-manager system:kube-controller-manager ""
  identity scheduler system:kube-scheduler ""
  identity kubelet system:node:node system:nodes
  identity proxy system:kube-proxy ""
)
kubeconfig() ( # NAME URL
  umask 077
  # Written aside: whoever sees the file sees all of it.
  cat >"$STATE/kubeconfig/.$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "$2", certificate-authority-data: $(base64 -w0 "$STATE/pki/ca.crt")}}]
users: [{name: $1, user: {token: $(cat "$STATE/pki/token-$1")}}]
contexts: [{name: test, context: {cluster: test, user: $1}}]
current-context: test
YAML
  mv "$STATE/kubeconfig/.$1" "$STATE/kubeconfig/$1"
)
kubectl_admin() { $(beside) kubectl --kubeconfig "$STATE/kubeconfig/admin" "$@"; }

# Audit: metadata of every request, one JSON line each. Tests count writes in it.
audit_policy() {
  cat >"$STATE/audit.yaml" <<YAML
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
YAML
}

control_plane() { # IP BIND_IP API_PORT ETCD_PORT PEER_PORT CONTROLLER_PORT
  local url=https://$1:$3 etcd=http://127.0.0.1:$4 peer=http://127.0.0.1:$5 pki=$STATE/pki configs=$STATE/kubeconfig user
  credentials "$1"
  for user in admin controller-manager scheduler kubelet proxy; do kubeconfig $user "$url"; done
  audit_policy
  start etcd etcd --data-dir "$STATE/etcd" --unsafe-no-fsync --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  start kube-apiserver kube-apiserver --etcd-servers "$etcd" --bind-address "$2" --advertise-address "$1" --secure-port "$3" \
    --tls-cert-file "$pki/server.crt" --tls-private-key-file "$pki/server.key" --client-ca-file "$pki/ca.crt" \
    --token-auth-file "$pki/tokens.csv" --authorization-mode Node,RBAC --service-cluster-ip-range $SERVICE_CIDR \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$pki/sa.pub" \
    --service-account-signing-key-file "$pki/sa.key" --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --audit-policy-file "$STATE/audit.yaml" --audit-log-path "$STATE/log/audit" --audit-log-maxsize 100 --audit-log-maxbackup 1 \
    --enable-admission-plugins NodeRestriction --allow-privileged=true --profiling=false
  await kube-apiserver 90 kubectl_admin get --raw /readyz
  # The only node is not given up, and its pods not called unready, because the API server was away for a minute.
  start kube-controller-manager kube-controller-manager --node-monitor-grace-period 5m --kubeconfig "$configs/controller-manager" \
    --authentication-kubeconfig "$configs/controller-manager" --authorization-kubeconfig "$configs/controller-manager" \
    --service-account-private-key-file "$pki/sa.key" --root-ca-file "$pki/ca.crt" --use-service-account-credentials \
    --cluster-cidr $POD_CIDR --allocate-node-cidrs=true --leader-elect=false --bind-address 127.0.0.1 --secure-port "$6" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" --kube-api-qps 500 --kube-api-burst 1000 \
    --horizontal-pod-autoscaler-sync-period 1s
  await kube-controller-manager 60 kubectl_admin get serviceaccount default
}

api_up() {
  build_api
  claim
  local ports
  ports=$(free_ports 4)
  # shellcheck disable=SC2086 # Four words.
  control_plane 127.0.0.1 127.0.0.1 $ports
  echo "export KUBECONFIG=$STATE/kubeconfig/admin"
}
