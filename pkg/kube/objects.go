package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// Object is a Kubernetes object of a file.
type Object struct {
	APIVersion, Kind, Namespace, Name string
	// File is its path, Where that with the document or item of several.
	File, Where string
	raw         []byte
}

// Decode decodes the object. Keys that out does not have are left out.
func (o *Object) Decode(out any) error {
	if err := yaml.Unmarshal(o.raw, out); err != nil {
		return fmt.Errorf("%s: %s", o.Where, complaint(err))
	}
	return nil
}

// ReadObjects reads the objects of files, and of the manifests in directories. Broken documents are
// returned by their place and what is wrong with them; they do not hide the others. An error is
// that of a path that cannot be read.
func ReadObjects(ctx context.Context, paths []string) (objects []Object, broken []string, err error) {
	for _, path := range paths {
		files, err := manifestFiles(path)
		if err != nil {
			return nil, nil, err
		}
		for _, file := range files {
			data, err := hostfile.Read(file, maxManifest)
			if err != nil {
				return nil, nil, fmt.Errorf("read manifests: %w", err)
			}
			found := new(manifests)
			found.addFile(ctx, file, data)
			for _, o := range found.objects {
				apiVersion, kind := o.gvk.ToAPIVersionAndKind()
				objects = append(objects, Object{apiVersion, kind, o.namespace, o.name, file, o.where, o.raw})
			}
			broken = append(broken, found.broken...)
		}
	}
	return objects, broken, nil
}

// manifestFiles returns the path of a file itself, and of a directory those of its manifests.
func manifestFiles(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, unix.ENOTDIR) {
		return []string{path}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var files []string
	for _, e := range entries {
		if isManifest(e.Name()) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	return files, nil
}
