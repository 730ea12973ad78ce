package plugin

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// RefusedError means that a configuration names a path which the node's administrator does not
// allow.
type RefusedError struct{ err error }

// Error names the key and says what to do.
func (e *RefusedError) Error() string { return e.err.Error() }

// Unwrap returns the error with its remedy.
func (e *RefusedError) Unwrap() error { return e.err }

// DataDir is [DataDir] in an operation: where it is known which roots the node had at the
// attachment's ADD, they count and not those of now.
func (r *Request) DataDir(
	key, value, fallback string, roots hostfile.Roots,
) (hostfile.Place, error) {
	if r.dataRoots != nil {
		roots = r.dataRoots
	}
	return DataDir(key, value, fallback, roots)
}

// Kept returns where data may be that an ADD kept in a directory which is refused now: anywhere if
// the ADD was an older Braid's, which did not note its roots, else beneath one of them, by a
// symbolic link. It is false where no ADD can have kept any; then nothing is to be opened.
func (r *Request) Kept(dir string) (hostfile.Place, bool) {
	if r.dataRoots == nil {
		return hostfile.Roots(nil).Place(dir)
	}
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return hostfile.Place{}, false
	}
	return r.dataRoots.Place(target)
}

// DataDir returns the directory for a plugin's data: the value of a key of the configuration, which
// must be beneath one of the roots, or the fallback where the key is empty. The fallback may be a
// symbolic link of the administrator's. An error is a RefusedError.
//
// netconf's HoldPaths has refused it before, for binaries as well; this is where a built-in plugin
// opens it, on the node as it is by then.
func DataDir(key, value, fallback string, roots hostfile.Roots) (hostfile.Place, error) {
	path := cmp.Or(value, fallback)
	if filepath.Clean(path) == fallback {
		roots = nil // nobody has chosen it
	}
	if !filepath.IsAbs(path) {
		return hostfile.Place{}, &RefusedError{ConfError(key, value, "is not an absolute path")}
	}
	place, ok := roots.Place(path)
	if !ok {
		err := ConfError(key, value,
			"is beneath none of the directories that this node has for data, "+strings.Join(roots, " and "))
		return place, &RefusedError{failure.WithFix(err,
			"leave the key out, choose a directory beneath these, "+
				`or add one to "braid": {"dataRoots": [...]} in the node's configuration`)}
	}
	return place, nil
}
