package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/nodeid"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

// addresses are the cluster-wide addresses of this node, for the plugins of one engine, or for one that is called under its own name.
type addresses struct {
	// cfg and source are the engine's; nil for whatever a plugin's own configuration says.
	cfg    *conf.Config
	source source
	log    *slog.Logger
	// trace is told of each change of state; nil for nobody.
	trace func(point string)
	// now is the wall clock, time.Now if nil. The boot clock is as fast.
	now func() time.Time
	// alone stands in for the engine's configuration, and used is then the plugin's own with which
	// the addresses were opened.
	alone conf.Braid
	used  *whereabouts.Conf
}

// open costs nothing yet: files are read, and the API server is dialled, when the manager needs them.
func (a *addresses) open(c *whereabouts.Conf) (*block.Manager, func(), error) {
	cfg, objects := a.cfg, a.source
	if cfg == nil {
		a.used = c
		cfg = &conf.Config{Kubeconfig: c.Kubernetes.Kubeconfig, LogOptions: conf.DefaultLogOptions(), Braid: a.alone}
	}
	var err error
	if objects == nil {
		if objects, err = newSource(cfg); err != nil {
			return nil, nil, err
		}
	}
	nodeName := cfg.Braid.NodeName
	if nodeName == "" {
		if nodeName, err = nodeid.Hostname(); err != nil {
			return nil, nil, err
		}
	}
	log, done := a.logOf(c, cfg.LogOptions)
	step := func(change string) error {
		if a.trace != nil {
			a.trace("addresses: " + change)
		}
		return nil
	}
	m := &block.Manager{
		Objects: known{objects}, Dir: filepath.Join(cfg.Braid.StateDir, "ipam"), NodeName: nodeName, Boot: nodeid.Boot(cfg.Braid.StateDir), Log: log,
		Tell: teller(objects, log), Step: step, Wall: a.now,
	}
	if a.now != nil {
		fast := time.Until(a.now())
		m.Now = func() time.Time { return block.BootClock().Add(fast) }
	}
	return m, done, nil
}

// Tend implements engine.Upkeep: it does for the node's blocks of all networks what is due.
func (a *addresses) Tend(ctx context.Context) error {
	return a.tend(ctx, &whereabouts.Conf{Type: "whereabouts"})
}

func (a *addresses) tend(ctx context.Context, c *whereabouts.Conf) error {
	m, done, err := a.open(c)
	if err != nil {
		return err
	}
	defer done()
	m.Step = nil // it is not of the sandbox whose changes are traced
	return m.Tend(ctx)
}

// tendUsed is Tend for a plugin that is called under its own name, if it has used addresses of the
// cluster. Nobody is there to tell what fails.
func (a *addresses) tendUsed(ctx context.Context) {
	if a.used == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tendWithin)
	defer cancel()
	_ = a.tend(ctx, a.used) //nolint:errcheck // it stays due
}

// tendWithin bounds that.
const tendWithin = time.Second

// alone is what a plugin that is called under its own name has in place of Braid's configuration.
// NODENAME is what the reference reads.
func alone() conf.Braid {
	return conf.Braid{
		NodeName: strings.TrimSpace(os.Getenv("NODENAME")), StateDir: conf.DefaultStateDir, Timeouts: conf.Timeouts{API: conf.DefaultAPITimeout},
	}
}

// logOf returns the log that a configuration asks for, else that of the caller.
func (a *addresses) logOf(c *whereabouts.Conf, rotation conf.LogOptions) (*slog.Logger, func()) {
	log := a.log.With("ipam", c.Type)
	if c.LogFile == "" {
		return log, func() {}
	}
	file, err := openLog(c.LogFile, int64(rotation.MaxSize)<<20)
	if err != nil {
		log.Warn("its own log cannot be used", "file", c.LogFile, "error", err)
		return log, func() {}
	}
	name, err := conf.LogLevel(c.LogLevel)
	if err != nil {
		name = conf.DefaultLogLevel
	}
	own := slog.New(slog.NewTextHandler(orStderr{file}, &slog.HandlerOptions{Level: level(name)}))
	return own, func() {
		if err := file.Close(); err != nil {
			log.Warn("close its own log", "file", c.LogFile, "error", err)
		}
	}
}

// openLog opens a log to append to. A network may have chosen its name, so nothing leads out of the
// directory for logs; any other path is the administrator's. A log of more than maxSize bytes gets
// the name ".old" in the place of the one before.
func openLog(path string, maxSize int64) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("it is no absolute path")
	}
	place, ok := whereabouts.LogRoots().Place(filepath.Dir(path))
	if !ok {
		place, _ = hostfile.Roots(nil).Place(filepath.Dir(path))
	}
	dir, err := place.Make(0o755)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Base(path)
	if st, err := dir.Stat(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && maxSize > 0 && st.Size >= maxSize {
		if err := dir.Rename(name, dir, name+".old"); err != nil {
			return nil, err
		}
	}
	fd, err := dir.Open(name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, file.Close(), &hostfile.NotRegularError{})
	}
	return file, nil
}

// teller raises events.
func teller(events source, log *slog.Logger) func(context.Context, string, types.UID, string, string) {
	return func(ctx context.Context, pod string, uid types.UID, reason, message string) {
		namespace, name, _ := strings.Cut(pod, "/")
		err := events.Event(ctx, &metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}, "Warning", reason, message)
		if err != nil {
			log.WarnContext(ctx, "event could not be raised", "pod", pod, "reason", reason, "message", message, "error", err)
		}
	}
}

// known says how to name the node where there is none of the name.
type known struct{ source }

// Node gives the metadata of a Node object.
func (k known) Node(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	node, err := k.source.Node(ctx, name)
	if apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) { // a hostname need not be a name of objects
		return nil, &failure.Error{
			Reason: failure.InvalidConfig, Field: "braid.nodeName", Err: err, Fix: "set it to the name of the Node object of this machine",
		}
	}
	return node, err
}
