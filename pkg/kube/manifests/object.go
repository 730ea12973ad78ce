package manifests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
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

// template is a pod, or what pods are made by.
type template struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
}

// workload is where objects have a template, if they have one: a Deployment in spec.template, a
// CronJob in spec.jobTemplate.
type workload struct {
	template

	Spec struct {
		Template    *template `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template *template `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// Pods returns the pod that the object is, or those that it has a template of, as a Deployment. Of
// each it has the metadata.
func (o *Object) Pods() (pods []podv1.Pod, err error) {
	var w workload
	if !slices.Contains([]string{"v1", "apps/v1", "batch/v1"}, o.APIVersion) {
		return nil, nil
	}
	if o.Kind == "Pod" {
		w.Spec.Template = &w.template
	}
	if err := o.Decode(&w); err != nil && o.Kind == "Pod" {
		return nil, err
	}
	for _, t := range []*template{w.Spec.Template, w.Spec.JobTemplate.Spec.Template} {
		if t != nil {
			meta := metav1.ObjectMeta{
				Namespace: o.Namespace, Name: o.Name, Annotations: t.Metadata.Annotations,
			}
			pods = append(pods, podv1.Pod{ObjectMeta: meta, MetaOnly: true})
		}
	}
	return pods, nil
}

// Read reads the objects of files, and of the manifests in directories. The error joins
// those of broken documents, each by its place; they do not hide the others. A path that cannot be
// read is an error alone.
func Read(ctx context.Context, paths []string) (objects []Object, err error) {
	var errs []error
	for _, path := range paths {
		files, err := manifestFiles(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := hostfile.Read(file, maxManifest)
			if err != nil {
				return nil, fmt.Errorf("read manifests: %w", err)
			}
			found := new(contents)
			found.addFile(ctx, file, data)
			for _, o := range found.objects {
				apiVersion, kind := o.gvk.ToAPIVersionAndKind()
				objects = append(objects, Object{apiVersion, kind, o.namespace, o.name, file, o.where, o.raw})
			}
			for _, broken := range found.broken {
				errs = append(errs, errors.New(broken))
			}
		}
	}
	return objects, errors.Join(errs...)
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
