// Package kube reads and writes Kubernetes objects: pods, NetworkAttachmentDefinitions (NADs), the
// network-status annotation, events, the devices of ResourceClaims, and for cluster-wide IPAM
// blocks of addresses, nodes and IPAMClaims. Agents use it for their reports on nodes, the start-up
// taint, and tokens.
//
// API is one of two sources with the same methods. The other is the Directory of package manifests,
// YAML files for hosts without a cluster. Neither touches the network or a file before its first
// use.
//
// Contract of a source (package sourcetest holds every one to it):
//   - What is not there, is another object by now, or may not be touched is told by an error of
//     k8s.io/apimachinery/pkg/api/errors somewhere in the chain: IsNotFound, IsConflict,
//     IsForbidden, and IsBadRequest for names that no object can have. For an IPBlock that exists
//     already it is IsAlreadyExists, and for a change that its rules refuse IsInvalid.
//   - All else that fails is a *failure.Error: APIUnavailable where trying again later may help,
//     InvalidConfig, NADInvalid, InvalidAnnotation or StateCorrupt where somebody has to repair
//     something, TimedOut where the caller gave up.
//   - Every method returns soon after its context is done, may be called concurrently, and may be
//     repeated: an event that is recorded twice is recorded once. A network-status replaces the one
//     that the caller knows, and a change is one of a version of an IPBlock: either takes effect
//     once, and is a conflict when repeated.
//   - An IPBlock or IPAMClaim that cannot be read, or an API server that does not serve them, is
//     never "not found": what is not there is free to others.
//
// The plugin is a process for every operation, so every start pays for what it links. It uses
// client-go's rest and clientcmd (1.4 MB), without a clientset, and net/http's own HTTP/2:
// client-go's would be another 0.5 MB, an Event of core/v1 another 3.2 MB.
package kube
