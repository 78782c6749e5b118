#!/usr/bin/env bash
# The first walkthrough on a minikube of your own: MetalLB's addon with FerroLB's images, Istio's ingress gateway with
# the address NETWORK.96, httpbin through it from this machine, without `minikube tunnel`.
#
#   e2e/minikube/walkthrough.sh up      make the cluster and go through all steps
#   e2e/minikube/walkthrough.sh check   ask the gateway again
#   e2e/minikube/walkthrough.sh down    delete the cluster and nothing else
#
# Needed: minikube 1.29 or newer, kubectl, istioctl, curl, and docker or podman to build the images. Settings, by the
# environment: PROFILE (ferrolb), DRIVER (docker), MEMORY in MiB (4096), CONTROLLER and SPEAKER (images).
#
# Where this ran: the project's tests have no minikube. They run this script with stand-ins for minikube, docker,
# istioctl, kubectl and curl, which shows its order and what it does when a step fails; they run the addon's objects with
# these images, this pool and one node on a real cluster, and Istio's gateway in front of an application on another.
# minikube itself, and these commands of it, were not run: tell us what you see.
set -euo pipefail

PROFILE=${PROFILE:-ferrolb}
DRIVER=${DRIVER:-docker}
MEMORY=${MEMORY:-4096}
VERSION=0.1.0
CONTROLLER=${CONTROLLER:-docker.io/ferrolb/controller:$VERSION}
SPEAKER=${SPEAKER:-docker.io/ferrolb/speaker:$VERSION}
HOST_NAME=httpbin.example.com
# The node's address in the walkthrough: in the pool, as it was there.
STATIC_IP=192.168.99.100
ROOM=$(cd "$(dirname "$0")" && pwd)
PROJECT=$(cd "$ROOM/../.." && pwd)

say() { printf '\n==> %s\n' "$*"; }
fail() { printf '\nFAILED: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
kube() { kubectl --context "$PROFILE" "$@"; }
mini() { minikube --profile "$PROFILE" "$@"; }

# 192.168.99 of the node's address.
network() {
  local address
  address=$(mini ip) || fail "minikube knows no address of its node: is the profile $PROFILE running?"
  printf '%s' "${address%.*}"
}

preconditions() {
  local tool
  for tool in minikube kubectl istioctl curl; do
    have "$tool" || fail "$tool is not installed (istioctl: https://istio.io/latest/docs/setup/getting-started/)"
  done
  case "$DRIVER:$(uname -s)" in
    docker:Linux | podman:Linux | kvm2:* | virtualbox:* | hyperkit:* | vfkit:*) ;;
    docker:* | podman:*)
      fail "with the $DRIVER driver on $(uname -s) the cluster is inside a virtual machine whose network this machine" \
        "cannot reach: no load balancer of layer 2 can help. Use DRIVER=vfkit, hyperkit or virtualbox (docs/minikube.md)" ;;
    *) fail "DRIVER=$DRIVER: see docs/minikube.md for what is known of it" ;;
  esac
}

images() {
  local engine image target
  for engine in docker podman; do
    have "$engine" && break
  done
  for target in controller speaker; do
    if [ "$target" = controller ]; then image=$CONTROLLER; else image=$SPEAKER; fi
    if ! "$engine" image inspect "$image" >/dev/null 2>&1; then
      if [ "$image" != "docker.io/ferrolb/$target:$VERSION" ]; then
        say "$image is not on this machine: the cluster will fetch it from its registry"
        continue
      fi
      have "$engine" || fail "neither docker nor podman is there to build $image; or set CONTROLLER and SPEAKER"
      say "building $image with $engine: minutes, once"
      "$engine" build --target "$target" --tag "$image" "$PROJECT"
    fi
    say "loading $image into minikube"
    mini image load "$image"
  done
}

cluster() {
  local options=(--driver "$DRIVER" --memory "$MEMORY" --cpus 2)
  case "$DRIVER" in
    docker | podman) options+=(--static-ip "$STATIC_IP") ;;
    virtualbox) options+=(--host-only-cidr 192.168.99.1/24) ;;
  esac
  say "starting minikube: minikube --profile $PROFILE start ${options[*]}"
  mini start "${options[@]}"
}

balancer() {
  local first=$1 last=$2 written
  say "enabling MetalLB's addon with FerroLB's images"
  mini addons enable metallb --images="Controller=$CONTROLLER,Speaker=$SPEAKER"
  say "giving it the pool $first-$last (192.168.99.100/28 on the walkthrough's network)"
  # It asks two questions and reads each answer by itself, so the second one must come later.
  { printf '%s\n' "$first"; sleep 3; printf '%s\n' "$last"; } | mini addons configure metallb
  written=$(kube --namespace metallb-system get configmap config --output 'jsonpath={.data.config}')
  case "$written" in
    *"$first-$last"*) ;;
    *) fail "the addon has another pool, perhaps of an earlier try (minikube asks only once):" \
         "$written. Run '$0 down' and begin again" ;;
  esac
  kube --namespace metallb-system rollout status deployment/controller --timeout 120s
  kube --namespace metallb-system rollout status daemonset/speaker --timeout 120s
}

istio() {
  say "installing Istio with its ingress gateway"
  istioctl install --context "$PROFILE" --set profile=default --skip-confirmation
  say "the application, and the gateway's way to it"
  kube apply --filename "$ROOM/httpbin.yaml" --filename "$ROOM/gateway.yaml"
  kube rollout status deployment/httpbin --timeout 180s
}

# Asks the gateway for a path until the status is the expected one, for a minute at most.
expect() {
  local address=$1 path=$2 expected=$3 status='' try
  for try in $(seq 1 30); do
    status=$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 10 \
      --header "Host: $HOST_NAME" "http://$address$path") || true
    if [ "$status" = "$expected" ]; then
      printf '    http://%s%s for %s: %s\n' "$address" "$path" "$HOST_NAME" "$status"
      return
    fi
    [ "$try" = 30 ] || sleep 2
  done
  fail "http://$address$path answers '$status', not $expected. Does 'ip neighbour show $address' have a MAC? If not:" \
    "kubectl --context $PROFILE -n metallb-system logs daemonset/speaker"
}

check() {
  local address='' wanted try
  wanted="$(network).96"
  for try in $(seq 1 30); do
    address=$(kube --namespace istio-system get service istio-ingressgateway \
      --output 'jsonpath={.status.loadBalancer.ingress[0].ip}')
    [ -n "$address" ] && break
    [ "$try" = 30 ] || sleep 2
  done
  say "the gateway's address is ${address:-none}"
  [ "$address" = "$wanted" ] || fail "it should be $wanted; why not:" \
    "kubectl --context $PROFILE -n istio-system describe service istio-ingressgateway"
  expect "$address" /status/200 200
  expect "$address" /status/418 418
  expect "$address" /delay/2 200
  expect "$address" /headers 404
  say "everything of the walkthrough works; '$0 down' removes it"
}

up() {
  local net
  preconditions
  cluster
  images
  net=$(network)
  balancer "$net.96" "$net.111"
  istio
  check
}

case "${1:-}" in
  up) up ;;
  check) check ;;
  down)
    say "deleting the profile $PROFILE"
    mini delete ;;
  *) sed -n 's/^# \{0,1\}//; 2,11p' "$0"; exit 2 ;;
esac
