package install_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/install/platform"
	"github.com/braid-cni/braid/pkg/internal/killtest"
)

func TestMain(m *testing.M) { os.Exit(killtest.Main(m, workOnce)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	flannel = `{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"}]}`
	calico  = `{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico"}]}`
	multus  = `{"name":"multus-cni-network","cniVersion":"0.3.1","type":"multus",` +
		`"delegates":[{"type":"x"}]}`
)

// options are what a node is installed with; they go to the process that is killed, too.
type options struct {
	Root, Named, Version string
	Move, Uninstall      bool
	Restore              string
}

// newInstaller is for a node whose file system is beneath a directory.
func newInstaller(o options) *install.Installer {
	at := func(path string) string { return filepath.Join(o.Root, path) }
	i := &install.Installer{
		Store: &own.Store{Dir: at("var/lib/braid"), Self: "agent", Installation: "i"},
		Place: platform.Place{
			Conf: at("etc/cni/net.d"), Bin: at("opt/cni/bin"), Private: at("etc/cni/braid.d"),
		},
		Kubeconfig: at("var/lib/braid/kubeconfig"), Named: o.Named, Move: o.Move,
		Render: func(network *defaultnet.Candidate) ([]byte, error) {
			c := conf.Defaults()
			c.ClusterNetwork = network.Path
			return conf.Render(c)
		},
	}
	for _, name := range []string{"braid", "braid-full"} {
		path := filepath.Join(i.Place.Bin, name)
		i.Binaries = append(i.Binaries,
			own.Bytes(path, 0o755, install.KindBinary, []byte(name+o.Version)))
	}
	return i
}

// host is a node that Braid is installed on.
type host struct {
	*install.Installer

	t *testing.T
	o options
}

// newHost makes a node with a kubeconfig, and files in the runtime's directory, from pairs of name
// and content.
func newHost(t *testing.T, o options, files ...string) *host {
	t.Helper()
	o.Root = t.TempDir()
	h := &host{newInstaller(o), t, o}
	must(t, os.MkdirAll(h.Place.Conf, 0o755))
	must(t, h.Store.Claim(t.Context()))
	must(t, h.kubeconfig())
	for i := 0; i < len(files); i += 2 {
		h.write(files[i], files[i+1])
	}
	return h
}

func (h *host) kubeconfig() error {
	_, err := h.Store.Put(h.t.Context(),
		own.Bytes(h.Kubeconfig, 0o600, install.KindKubeconfig, []byte("kubeconfig")))
	return err
}

// conf is the path of a file in the runtime's directory, old enough not to be in the making.
func (h *host) conf(name string) string { return filepath.Join(h.Place.Conf, name) }

func (h *host) write(name, content string) {
	h.t.Helper()
	must(h.t, os.WriteFile(h.conf(name), []byte(content), 0o600))
	must(h.t, os.Chtimes(h.conf(name), time.Time{}, time.Now().Add(-time.Hour)))
}

func (h *host) apply() *install.Outcome {
	h.t.Helper()
	out, err := h.Apply(h.t.Context())
	must(h.t, err)
	return out
}

// notReady wants an Apply to wait, and say why.
func (h *host) notReady(words ...string) {
	h.t.Helper()
	_, err := h.Apply(h.t.Context())
	if failure.ReasonOf(err) != failure.NotReady || failure.FixOf(err) == "" {
		h.t.Errorf("error is %v, want NotReady and a fix", err)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			h.t.Errorf("error %v does not say %q", err, word)
		}
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// has wants a directory to have just these files.
func (h *host) has(dir string, files ...string) {
	h.t.Helper()
	if got := names(h.t, dir); !slices.Equal(got, files) {
		h.t.Errorf("%s has %q, want %q", dir, got, files)
	}
}

// network returns the default network that a Braid configuration refers to.
func network(path string) (string, error) {
	c, err := conf.LoadFile(path)
	if err != nil {
		return "", err
	}
	return c.ClusterNetwork, nil
}

// refersTo wants the configuration to have that default network.
func (h *host) refersTo(name, path string) {
	h.t.Helper()
	if got, err := network(h.conf(name)); err != nil || got != path {
		h.t.Errorf("%s refers to %s, %v, want %s", name, got, err, path)
	}
}

// works checks what a runtime would do on the node now: the first configuration is whole, and if it
// is Braid's, so are its default network and the binary. It returns the type of its first plugin.
func (h *host) works() (pluginType string, err error) {
	for _, name := range names(h.t, h.Place.Conf) {
		if !defaultnet.IsConfiguration(name) {
			continue
		}
		raw, err := os.ReadFile(h.conf(name))
		if err != nil {
			return "", err
		}
		var list struct {
			Type    string
			Plugins []struct{ Type string }
		}
		if err := json.Unmarshal(raw, &list); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if list.Type != "" || list.Plugins[0].Type != "braid" {
			return list.Type + name, nil
		}
		path, err := network(h.conf(name))
		if err != nil {
			return "", err
		}
		for _, needed := range []string{
			path, filepath.Join(h.Place.Bin, "braid"), filepath.Join(h.Place.Bin, "braid-full"),
			h.Kubeconfig,
		} {
			if content, err := os.ReadFile(needed); err != nil || len(content) == 0 {
				return "", fmt.Errorf("%s needs %s: %w", name, needed, err)
			}
		}
		return "braid", nil
	}
	return "", nil
}

// work is what a process of a host does.
func work(ctx context.Context, i *install.Installer, o options) error {
	if !o.Uninstall {
		if err := i.Store.Claim(ctx); err != nil {
			return err
		}
		_, err := i.Apply(ctx)
		return err
	}
	_, err := i.Uninstall(ctx, install.Removal{Restore: o.Restore, Files: true})
	return err
}
