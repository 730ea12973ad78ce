package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Boot returns a text that names this boot of the machine for all who share the state directory. id
// is the kernel's ID of the boot. The first caller of a boot chooses the text. It is lost with the
// directory, so choose should return the same one again if it can.
//
// The text is in a symbolic link, which is made with its content in one step.
func (s *Store) Boot(id string, choose func() string) (string, error) {
	name := bootPrefix + id
	path := filepath.Join(s.dir, name)
	text, err := os.Readlink(path)
	if err == nil {
		return text, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", stateFailed(fmt.Errorf("read name of the boot: %w", err))
	}
	if err := s.ensure(s.dir); err != nil {
		return "", err
	}
	text = choose()
	err = os.Symlink(text, path)
	switch {
	case errors.Is(err, fs.ErrExist):
		text, err = os.Readlink(path)
	case IsFull(err): // it is chosen anew by each, which as a rule is the same
		return text, nil
	case err == nil:
		s.forgetBoots(name)
	}
	if err != nil {
		return "", stateFailed(fmt.Errorf("choose name of the boot: %w", err))
	}
	return text, nil
}

const bootPrefix = "boot-"

// forgetBoots removes the names of earlier boots.
func (s *Store) forgetBoots(except string) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), bootPrefix) && e.Name() != except {
			os.Remove(filepath.Join(s.dir, e.Name())) //nolint:errcheck // it does no harm
		}
	}
}
