// Package conf is Braid's own configuration on the node: the network configuration that the runtime
// passes on stdin, with the keys of Multus and their meaning plus Braid's own under "braid".
//
// It is split by life: a process reads Node and Policy once, and Call with each request. Each has
// one reader, which looks at no key of the others.
//
// Contract: what is returned is validated; errors are *failure.Error and name the field and the
// allowed values. All is pure but LoadFile, which reads one file.
package conf

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/loglevel"
	"github.com/braid-cni/braid/pkg/policy"
)

// Defaults of keys that are absent or null.
const (
	// as in Multus, so that an operator's files are found
	DefaultConfDir         = "/etc/cni/multus/net.d"
	DefaultBinDir          = "/opt/cni/bin"
	DefaultLogDir          = "/var/log" // of a relative logFile
	DefaultStateDir        = "/run/braid"
	DefaultMultusNamespace = "kube-system"
	DefaultGlobalNamespace = "default"
	DefaultLogFile         = "/var/log/braid.log"
	// Device Information Specification 1.1.0, section 4
	DefaultDeviceInfoDir = "/var/run/k8s.cni.cncf.io/devinfo"
	DefaultPodResources  = "/var/lib/kubelet/pod-resources/kubelet.sock"
	DefaultLogLevel      = loglevel.Default

	DefaultOperationTimeout = 90 * time.Second
	DefaultRollbackTimeout  = 30 * time.Second
	DefaultAPITimeout       = 20 * time.Second
	DefaultStatusTimeout    = 2 * time.Second
)

// DefaultLogOptions returns those of Multus.
func DefaultLogOptions() LogOptions {
	return LogOptions{MaxAge: 5, MaxSize: 100, MaxBackups: 5, Compress: true}
}

// Config is Braid's own network configuration: what lives as long as a process, and what the
// runtime passes with one call. Defaults are filled in and every value is validated. Paths are
// absolute, without "..", and clean.
type Config struct {
	Node
	Policy
	Call
}

// Warnings returns those of all parts. They are of reason OddConfig: values that are read otherwise
// than they are written, as what Multus makes of them. None keeps a pod from starting.
func (c *Config) Warnings() []*failure.Error {
	return slices.Concat(c.Call.Warnings, c.Node.Warnings, c.Policy.Warnings)
}

// Node is where things are on this node, and what its operator decided. It is read once.
type Node struct {
	// Delegates are the default network and further networks of every pod, as inline confs or
	// conflists. Exactly one of Delegates and ClusterNetwork is set; with both, Multus and Braid
	// ignore Delegates. Each passes netconf.Parse.
	Delegates []json.RawMessage
	// ClusterNetwork is the default network: a NAD in MultusNamespace, the CNI name of a network in
	// ConfDir, a directory, or a file. DefaultNetworks are further networks of every pod outside
	// SystemNamespaces, named in the same way; they go with ClusterNetwork and are ignored without
	// it.
	ClusterNetwork   string
	DefaultNetworks  []string
	SystemNamespaces []string
	MultusNamespace  string
	// AuxiliaryCNIChainName adds a network of chained plugins to every pod, see
	// netconf.AuxiliaryChain; only with a ClusterNetwork that is a path.
	AuxiliaryCNIChainName string

	// ConfDir holds CNI configuration of networks on disk. CNIDir is where libcni caches results,
	// "cni" in the state directory by default. BinDirs are searched for plugins after the runtime's
	// CNI_PATH.
	ConfDir, CNIDir string
	BinDirs         []string
	// Exec lists plugin types that are exec'd even where Braid has them built in.
	Exec []string
	// Aliases are plugin types by other names that networks may use for them; nil for none.
	Aliases map[string]string
	// HotPlug is true if the networks of running pods follow their annotation.
	HotPlug bool

	// Capabilities are what the runtime is to pass in runtimeConfig.
	Capabilities map[string]bool

	Kubeconfig string
	// Manifests is the directory that serves Pods and NADs in place of an API server.
	Manifests string
	// NodeName is the name of the Node object of this machine; empty for its hostname.
	NodeName string
	// StateDir holds all that Braid remembers of live sandboxes; a tmpfs, since no sandbox survives
	// a reboot.
	StateDir string
	// DeviceInfoDir is where device plugins, delegates and Braid exchange descriptions of devices.
	DeviceInfoDir string
	// PodResources is the kubelet's socket that lists the devices of each pod.
	PodResources string

	LogFile     string // empty: no file
	LogLevel    string // debug, info, warn, error
	LogToStderr bool
	LogOptions  LogOptions

	// ReadinessIndicatorFile must exist before any attachment is made; empty: no such condition.
	ReadinessIndicatorFile string
	// RetryDeleteOnError has a DEL fail for as long as a plugin refuses it.
	RetryDeleteOnError bool
	Timeouts           Timeouts

	Warnings []*failure.Error
}

// Policy is what pods and the networks of NADs may do. It lives as long as Node.
type Policy struct {
	// NamespaceIsolation lets a pod use NADs of its own namespace and of GlobalNamespaces only.
	NamespaceIsolation bool
	GlobalNamespaces   []string
	// DataRoots are the directories beneath which the key dataDir of a network's configuration may
	// lead.
	DataRoots []string
	// RefuseUnknownKeys makes an error of a key that is not known, in an annotation or in the
	// configuration of a built-in plugin ("unknownKeys": "refuse"). By default ("warn") such a key
	// is ignored with a warning.
	RefuseUnknownKeys bool
	// SecondaryDefaultRoute is what becomes of a default route of another network than the default
	// one that the pod did not ask for: KeepDefaultRoute, TakeDefaultRoute or RefuseDefaultRoute.
	SecondaryDefaultRoute string
	// Rules are what the networks and the pods of namespaces may have; nil for none. PolicyDefault
	// is what becomes of the tenant's default where no rule names the namespace: AuditPolicy or
	// EnforcePolicy.
	Rules         []policy.Rule
	PolicyDefault string

	Warnings []*failure.Error
}

// Call is what the runtime passes with one call, beside the CNI variables.
type Call struct {
	CNIVersion string
	Name       string
	// RuntimeConfig is what the runtime passes for the default network, by capability; the pod's
	// annotations are one.
	RuntimeConfig map[string]json.RawMessage
	// ValidAttachments is the runtime's list on GC (CNI 1.1 "cni.dev/valid-attachments"); nil when
	// it sent none.
	ValidAttachments []types.GCAttachment

	Warnings []*failure.Error
}

// LogOptions rotate the log file: sizes in MB, age in days.
type LogOptions struct {
	MaxAge     int  `json:"maxAge"`
	MaxSize    int  `json:"maxSize"`
	MaxBackups int  `json:"maxBackups"`
	Compress   bool `json:"compress"`
}

// The values of "secondaryDefaultRoute".
const (
	// KeepDefaultRoute leaves it out, with a warning, where the pod has one of that family.
	KeepDefaultRoute = "keep"
	// TakeDefaultRoute lets the last network have it, as in Multus.
	TakeDefaultRoute = "take"
	// RefuseDefaultRoute keeps the pod from starting.
	RefuseDefaultRoute = "refuse"
)

// The values of "policyDefault".
const (
	// AuditPolicy lets pass what the tenant's default does not allow, with a warning, unless the
	// namespace has policy.TenantLabel.
	AuditPolicy = "audit"
	// EnforcePolicy refuses it.
	EnforcePolicy = "enforce"
)

// Timeouts bound operations; in JSON they are Go durations ("90s").
type Timeouts struct {
	// Operation bounds a whole ADD, DEL, CHECK or GC; Rollback what may be added to undo a failed ADD;
	// API the retries of a single API call; Status a STATUS.
	Operation, Rollback, API, Status time.Duration
}
