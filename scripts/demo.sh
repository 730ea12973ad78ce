#!/usr/bin/env bash
# demo.sh shows the main job of Braid without a cluster: a pod gets three interfaces, and loses them
# without a trace.
#
# Everything happens in a network and mount namespace of its own, with a tmpfs for state: the
# machine stays as it is. Root, or else a user namespace in which one is root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bold() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
	printf '\033[2m# %s\033[0m\n' "$*"
	"$@"
}

if [ -z "${BRAID_DEMO-}" ]; then
	export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
	scripts/install-deps.sh base
	scripts/build.sh bin braid
	BRAID_DEMO=$(dirname "$(scripts/tools.sh cnitool)")
	export BRAID_DEMO
fi
if [ -z "${BRAID_DEMO_NODE-}" ]; then
	export BRAID_DEMO_NODE=1
	user=()
	[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
	exec unshare "${user[@]}" --net --mount "$0"
fi

export PATH=$BRAID_DEMO:$PATH

bold "A node, with one NIC (ens224) on the data network"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib # cnitool has a cache there
work=/run/demo
mkdir -p $work/manifests $work/net.d /run/netns
ip link set lo up
ip link add ens224 type veth peer name wire
ip link set ens224 up
ip link set wire up
ip netns add pod
ip -brief link show ens224

# The master of data plane interfaces: ipvlan where the kernel has it, as in the user guide, else
# macvlan.
kind='"type": "macvlan", "mode": "bridge"'
if ip link add probe link ens224 type ipvlan 2>/dev/null; then
	ip link del probe
	kind='"type": "ipvlan", "mode": "l2"'
fi

bold "What a cluster would hold, as files: two NetworkAttachmentDefinitions, and a pod that asks" \
	"for them"
cat >$work/manifests/demo.yaml <<EOF
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: gke-network-1, namespace: default}
spec:
  config: '{"cniVersion": "1.0.0", "plugins": [
    {$kind, "master": "ens224", "ipam": {"type": "whereabouts",
      "range": "21.0.104.0/21", "range_start": "21.0.111.1", "gateway": "21.0.111.254"}},
    {"type": "sbr"}]}'
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: gke-network-2, namespace: default}
spec:
  config: '{"cniVersion": "1.0.0", $kind, "master": "ens224",
    "ipam": {"type": "host-local", "subnet": "10.20.0.0/24", "dataDir": "$work/leases",
      "routes": [{"dst": "172.31.0.0/16", "gw": "10.20.0.254"}]}}'
---
apiVersion: v1
kind: Pod
metadata:
  name: sd-wan
  namespace: default
  annotations:
    k8s.v1.cni.cncf.io/networks: gke-network-1,gke-network-2
EOF
sed -n '/kind: Pod/,$p' $work/manifests/demo.yaml
cat >$work/net.d/00-braid.conflist <<EOF
{"cniVersion": "1.0.0", "name": "braid", "plugins": [{
  "type": "braid", "logFile": "$work/braid.log", "binDir": "$PWD/bin",
  "braid": {"manifests": "$work/manifests", "stateDir": "$work/state", "dataRoots": ["$work"]},
  "delegates": [{"cniVersion": "1.0.0", "name": "pod-network",
    "type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": {"type": "host-local", "subnet": "192.168.0.0/24", "dataDir": "$work/leases",
      "routes": [{"dst": "0.0.0.0/0"}]}}]}]}
EOF

export CNI_PATH=$PWD/bin NETCONFPATH=$work/net.d CNI_IFNAME=eth0 CNI_CONTAINERID=demo
export CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=sd-wan"

bold "ADD, as a container runtime would"
show cnitool add braid /run/netns/pod >$work/result.json

bold "The pod"
show ip -netns pod -brief address
show ip -netns pod route
show ip -netns pod rule
show ip -netns pod route list table 100
bold "Its network-status annotation"
cat $work/manifests/default_sd-wan.network-status.json
echo
bold "CHECK asks every plugin of every network"
show cnitool check braid /run/netns/pod
echo "all is as ADD left it"
bold "The block of addresses that this node has claimed for gke-network-1, as it would be in a" \
	"cluster's API"
ls $work/manifests/ipblocks
grep -oh '"spec":{[^}]*}}' $work/manifests/ipblocks/*
bold "The log"
cat $work/braid.log

bold "DEL"
show cnitool del braid /run/netns/pod

bold "What is left"
left=0
for what in "links in the pod|ip -netns pod -o link show | grep -v ' lo:'" \
	"rules in the pod|ip -netns pod rule | grep -v 'from all lookup'" \
	"links of pods on the node|ip -o link show type veth | grep -v -e ens224 -e wire" \
	"addresses leased|find $work/leases -type f -regex '.*/[0-9.]+'" \
	"addresses of its block|find $work/state/ipam/held -type f" \
	"records of Braid|find $work/state/sandboxes $work/state/cni -type f"; do
	found=$(eval "${what#*|}" || true)
	printf '  %-28s %s\n' "${what%%|*}:" "${found:-none}"
	[ -z "$found" ] || left=1
done
if [ $left = 1 ]; then
	bold "Something is left: that is a bug"
	exit 1
fi
bold "A pod got three interfaces, and nothing is left of them."
