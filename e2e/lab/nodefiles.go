package lab

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Path returns where a file or directory of the node is found from outside. It must not lead
// through a symbolic link with an absolute target, which would be followed on the machine instead;
// /var/run, which is one, is taken care of.
func (n *Node) Path(inside string) string {
	inside = path.Clean("/" + inside)
	if rest, ok := strings.CutPrefix(inside, "/var/run/"); ok {
		inside = "/run/" + rest
	}
	return n.in.path(inside)
}

// WriteFile writes a file of the node, atomically, and makes the directories that lead to it.
func (n *Node) WriteFile(inside string, content []byte, mode os.FileMode) error {
	target := n.Path(inside)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("write %s on %s: %w", inside, n.Name, err)
	}
	if err := replaceFile(target, content, mode); err != nil {
		return fmt.Errorf("write %s on %s: %w", inside, n.Name, err)
	}
	return nil
}

// Install copies a file of the machine to the node.
func (n *Node) Install(outside, inside string, mode os.FileMode) error {
	content, err := os.ReadFile(outside)
	if err != nil {
		return fmt.Errorf("install on %s: %w", n.Name, err)
	}
	return n.WriteFile(inside, content, mode)
}

// InstallPlugins builds reference CNI plugins (see BuildPlugins) and installs them in the node's
// /opt/cni/bin.
func (n *Node) InstallPlugins(ctx context.Context, names ...string) error {
	dir := n.Cluster.dir.file("plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install plugins: %w", err)
	}
	if err := BuildPlugins(ctx, dir, names...); err != nil {
		return err
	}
	for _, name := range names {
		if err := n.Install(filepath.Join(dir, name), "/opt/cni/bin/"+name, 0o755); err != nil {
			return err
		}
	}
	return nil
}
