// Package lab runs real Kubernetes for tests, on one Linux machine and without a container engine:
// etcd and a kube-apiserver alone (StartAPI), or whole nodes with kubelet and containerd or CRI-O
// (StartCluster). The binaries are the ones that scripts/lab.sh builds from the pins in
// e2e/cluster; one that is at work is waited for.
//
// An API server alone needs no privilege; it listens on a loopback port. A cluster needs root and
// is walled off from the machine:
//
//	machine ── test process
//	              │ dials through the control plane's network namespace
//	  ┌───────────┴──────────────────────────┐
//	  │ control plane: a network namespace   │   etcd, kube-apiserver, scheduler, controller-manager
//	  │ 172.30.0.1, service address 10.96.0.1│
//	  └──bridge "cluster"───bridge "lan"─────┘
//	         │ eth0            │ eth1            a veth pair each; lan is for other networks of pods
//	  ┌──────┴─────────────────┴─────────────┐
//	  │ node: namespaces of its own for net, │   containerd, kubelet, shims, pods
//	  │ mounts, processes, host name, IPC    │
//	  └──────────────────────────────────────┘
//
// A node's root is an overlay of the machine's root on a tmpfs: everything has its usual path
// (/opt/cni/bin, /etc/cni/net.d, /run, /var/lib/kubelet), two nodes do not meet, and the machine's
// files stay as they are. Node.Path reaches in from outside.
//
// Nothing survives Stop, nor the test process, however that ends: every process is killed with it
// (PR_SET_PDEATHSIG), a node's first process takes its process namespace along, and that its
// mounts, links and network namespaces. The two things that the kernel does not take back, the
// temporary directory and the pods' cgroups, are removed by Stop or, after a SIGKILL, by the next
// start.
//
// Calls that start or stop something are for one goroutine at a time; everything else may be called
// concurrently.
package lab
