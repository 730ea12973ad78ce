// Package sysctl reads and writes the kernel's parameters below /proc/sys/net, which belong to a network namespace.
//
// Contract: a key is a path below /proc/sys with slashes, as "net/ipv4/conf/eth0.7/arp_notify": a dot is part of a name. Keys that lead
// out of /proc/sys/net are refused. The namespace is entered by a thread that does nothing else (netns.NS.Do), once for a batch.
package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/netns"
)

// root is where all keys of a network namespace are.
const root = "/proc/sys/net/"

// Setting is a parameter and its value.
type Setting struct{ Key, Value string }

// Path is the file of a key. A key that is no plain path below net/ is an error.
func Path(key string) (string, error) {
	path := filepath.Clean("/proc/sys/" + key)
	if !strings.HasPrefix(path, root) || strings.ContainsRune(key, 0) {
		return "", fmt.Errorf("sysctl %q is not below net", key)
	}
	return path, nil
}

// Set writes the settings in their order, up to the first that fails.
func Set(ns *netns.NS, settings ...Setting) error {
	return ns.Do(func() error {
		for _, s := range settings {
			if err := write(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// Swap is Set that gives the settings back as they were, in the order in which they must be set to be so again; with an error, those that
// it had written by then. What can be written and not read, as net/ipv4/route/flush, is not among them.
func Swap(ns *netns.NS, settings ...Setting) (before []Setting, err error) {
	err = ns.Do(func() error {
		for _, s := range settings {
			have, rerr := read(s.Key)
			if err := write(s); err != nil {
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
	return ns.Do(func() error {
		for _, s := range settings {
			if err := write(s); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// Get reads parameters, in the order of the keys.
func Get(ns *netns.NS, keys ...string) (values []string, err error) {
	err = ns.Do(func() error {
		for _, key := range keys {
			value, err := read(key)
			if err != nil {
				return err
			}
			values = append(values, value)
		}
		return nil
	})
	return values, err
}

// write sets a parameter. Where it cannot be written, as in a container whose /proc/sys is read-only, having the value already is enough.
func write(s Setting) error {
	path, err := Path(s.Key)
	if err != nil {
		return err
	}
	err = put(path, s.Value)
	if err != nil {
		if have, rerr := read(s.Key); rerr == nil && have == s.Value {
			return nil
		}
		return fmt.Errorf("set sysctl %s to %q: %w", s.Key, s.Value, err)
	}
	return nil
}

func put(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// read gives a parameter without the line's end. Several values in one stay apart as the kernel separates them.
func read(key string) (string, error) {
	path, err := Path(key)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", key, err)
	}
	return string(bytes.TrimRight(data, "\n")), nil
}
