// Package conf is Braid's own configuration on the node: the network configuration that the runtime
// passes on stdin, with the keys of Multus and their meaning plus Braid's own under "braid".
//
// Contract: Load and LoadFile validate all that they return; errors are *failure.Error and name the
// field and the allowed values. Load is pure; LoadFile reads one file.
package conf

import (
	"encoding/json"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
)

// Defaults of keys that are absent or null.
const (
	DefaultConfDir         = "/etc/cni/multus/net.d" // as in Multus, so that an operator's files are found
	DefaultBinDir          = "/opt/cni/bin"
	DefaultLogDir          = "/var/log" // of a relative logFile
	DefaultStateDir        = "/run/braid"
	DefaultMultusNamespace = "kube-system"
	DefaultGlobalNamespace = "default"
	DefaultLogFile         = "/var/log/braid.log"
	DefaultDeviceInfoDir   = "/var/run/k8s.cni.cncf.io/devinfo" // Device Information Specification 1.1.0, section 4
	DefaultPodResources    = "/var/lib/kubelet/pod-resources/kubelet.sock"
	DefaultLogLevel        = "info"

	DefaultOperationTimeout = 90 * time.Second
	DefaultRollbackTimeout  = 30 * time.Second
	DefaultAPITimeout       = 20 * time.Second
	DefaultStatusTimeout    = 2 * time.Second
)

// DefaultLogOptions are those of Multus.
func DefaultLogOptions() LogOptions {
	return LogOptions{MaxAge: 5, MaxSize: 100, MaxBackups: 5, Compress: true}
}

// Config is Braid's own network configuration, with defaults filled in and every value validated. Paths are absolute, without
// "..", and clean.
type Config struct {
	CNIVersion string
	Name       string

	// Delegates are the default network and further networks of every pod, as inline confs or conflists.
	// Exactly one of Delegates and ClusterNetwork is set; with both, Multus and Braid ignore Delegates. Each passes netconf.Parse.
	Delegates []json.RawMessage
	// ClusterNetwork is the default network: a NAD in MultusNamespace, the CNI name of a network in ConfDir, a directory, or a
	// file. DefaultNetworks are further networks of every pod outside SystemNamespaces, named in the same way; they go with
	// ClusterNetwork and are ignored without it.
	ClusterNetwork   string
	DefaultNetworks  []string
	SystemNamespaces []string
	MultusNamespace  string

	// ConfDir holds CNI configuration of networks on disk. CNIDir is where libcni caches results, "cni" in the state directory
	// by default. BinDirs are searched for plugins
	// after the runtime's CNI_PATH.
	ConfDir, CNIDir string
	BinDirs         []string
	Kubeconfig      string

	LogFile     string // empty: no file
	LogLevel    string // debug, info, warn, error
	LogToStderr bool
	LogOptions  LogOptions

	// RuntimeConfig is what the runtime passes for the default network, by capability.
	RuntimeConfig map[string]json.RawMessage
	// ReadinessIndicatorFile must exist before any attachment is made; empty: no such condition.
	ReadinessIndicatorFile string
	// NamespaceIsolation lets a pod use NADs of its own namespace and of GlobalNamespaces only.
	NamespaceIsolation bool
	GlobalNamespaces   []string
	// AuxiliaryCNIChainName adds a network of chained plugins to every pod, see netconf.AuxiliaryChain; only with a ClusterNetwork that
	// is a path.
	AuxiliaryCNIChainName string
	RetryDeleteOnError    bool

	// ValidAttachments is the runtime's list on GC (CNI 1.1 "cni.dev/valid-attachments"); nil when it sent none.
	ValidAttachments []types.GCAttachment

	Braid Braid

	// Warnings are of reason OddConfig: values that are read otherwise than they are written, as
	// what Multus makes of them. None of them keeps a pod from starting.
	Warnings []*failure.Error
}

// LogOptions rotate the log file: sizes in MB, age in days.
type LogOptions struct {
	MaxAge     int  `json:"maxAge"`
	MaxSize    int  `json:"maxSize"`
	MaxBackups int  `json:"maxBackups"`
	Compress   bool `json:"compress"`
}

// Braid holds the keys that are Braid's own; an unknown one is an error.
type Braid struct {
	// Manifests is the directory that serves Pods and NADs in place of an API server.
	Manifests string
	// StateDir holds all that Braid remembers of live sandboxes; a tmpfs, since no sandbox survives a reboot.
	StateDir string
	// DeviceInfoDir is where device plugins, delegates and Braid exchange descriptions of devices.
	DeviceInfoDir string
	// PodResources is the kubelet's socket that tells which devices a pod has.
	PodResources string
	// Exec lists plugin types that are exec'd even where Braid has them built in.
	Exec     []string
	NodeName string
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
	Timeouts              Timeouts
}

// The values of "secondaryDefaultRoute".
const (
	// KeepDefaultRoute leaves it out, with a warning, where the pod has one of that family.
	KeepDefaultRoute = "keep"
	// TakeDefaultRoute lets the last network have it, as in Multus.
	TakeDefaultRoute = "take"
	// RefuseDefaultRoute is that the pod does not start.
	RefuseDefaultRoute = "refuse"
)

// Timeouts bound operations; in JSON they are Go durations ("90s").
type Timeouts struct {
	// Operation bounds a whole ADD, DEL, CHECK or GC; Rollback what may be added to undo a failed ADD; API the retries of a
	// single API call; Status a STATUS.
	Operation, Rollback, API, Status time.Duration
}
