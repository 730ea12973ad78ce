// Package sysctl reads and writes the kernel's parameters below /proc/sys/net, which belong to a
// network namespace.
//
// Contract: a key is a path below /proc/sys with slashes, as "net/ipv4/conf/eth0.7/arp_notify": a
// dot is part of a name. Keys that lead out of /proc/sys/net are refused. The namespace is entered
// by a thread that does nothing else (netns.NS.Do), once for a batch, but for IPv6 parameters of
// interfaces: those are reached from outside, once the directory that they are in was opened.
package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// root is where all keys of a network namespace are.
const root = "/proc/sys/net/"

// Setting is a parameter and its value.
type Setting struct{ Key, Value string }

// Path returns the file of a key. A key that is no plain path below net/ is an error.
func Path(key string) (string, error) {
	path := filepath.Clean("/proc/sys/" + key)
	if !strings.HasPrefix(path, root) || strings.ContainsRune(key, 0) {
		return "", fmt.Errorf("sysctl %q is not below net", key)
	}
	return path, nil
}

// Set writes the settings in their order, up to the first that fails.
func Set(ns *netns.NS, settings ...Setting) error {
	return visit(ns, settings, func() error {
		for _, s := range settings {
			if err := write(ns, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Swap is Set that gives the settings back as they were, in the order in which they must be set to
// be so again; with an error, those that it had written by then. What can be written and not read,
// as net/ipv4/route/flush, is not among them.
func Swap(ns *netns.NS, settings ...Setting) (before []Setting, err error) {
	err = visit(ns, settings, func() error {
		for _, s := range settings {
			have, rerr := read(ns, s.Key)
			if err := write(ns, s); err != nil {
				return err
			}
			if rerr == nil {
				before = append(before, Setting{s.Key, have})
			}
		}
		return nil
	})
	slices.Reverse(before)
	return before, err
}

// Try writes the settings that the kernel knows: one whose file is missing is passed over.
func Try(ns *netns.NS, settings ...Setting) error {
	return visit(ns, settings, func() error {
		for _, s := range settings {
			if err := write(ns, s); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// Get reads parameters, in the order of the keys.
func Get(ns *netns.NS, keys ...string) (values []string, err error) {
	var settings []Setting
	for _, key := range keys {
		settings = append(settings, Setting{Key: key})
	}
	err = visit(ns, settings, func() error {
		for _, key := range keys {
			value, err := read(ns, key)
			if err != nil {
				return err
			}
			values = append(values, value)
		}
		return nil
	})
	return values, err
}

// ofInterfaces is the directory with the IPv6 parameters of interfaces. What it has is the
// namespace's in which it was opened, whichever the thread is in that reads or writes it; the other
// parameters may be those of the thread's namespace.
const ofInterfaces = root + "ipv6/conf/"

// Reach opens what the IPv6 parameters of interfaces are reached by without entering the namespace.
// A kernel without IPv6 has none.
func Reach(ns *netns.NS) error {
	if _, err := ns.Dir(ofInterfaces); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// visit runs fn, in the namespace where the settings need that.
func visit(ns *netns.NS, settings []Setting, fn func() error) error {
	reached := func(s Setting) bool {
		path, err := Path(s.Key)
		return err != nil || strings.HasPrefix(path, ofInterfaces)
	}
	if len(settings) > 0 && slices.IndexFunc(settings, func(s Setting) bool {
		return !reached(s)
	}) < 0 {
		return fn()
	}
	return ns.Do(fn)
}

// open opens the file of a key. The thread is in the namespace where the key is of no interface.
func open(ns *netns.NS, key string, flags int) (*os.File, error) {
	path, err := Path(key)
	if err != nil {
		return nil, err
	}
	at := unix.AT_FDCWD
	name, ok := strings.CutPrefix(path, ofInterfaces)
	if ok {
		if at, err = ns.Dir(ofInterfaces); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Openat(at, name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// write sets a parameter. Where it cannot be written, as in a container whose /proc/sys is
// read-only, having the value already is enough.
func write(ns *netns.NS, s Setting) error {
	err := put(ns, s)
	if err != nil {
		if have, rerr := read(ns, s.Key); rerr == nil && have == s.Value {
			return nil
		}
		return fmt.Errorf("set sysctl %s to %q: %w", s.Key, s.Value, err)
	}
	return nil
}

func put(ns *netns.NS, s Setting) error {
	f, err := open(ns, s.Key, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(s.Value)
	return err
}

// read returns a parameter without the line's end. Several values in one stay apart as the kernel
// separates them.
func read(ns *netns.NS, key string) (string, error) {
	f, err := open(ns, key, unix.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return string(bytes.TrimRight(data, "\n")), nil
}
