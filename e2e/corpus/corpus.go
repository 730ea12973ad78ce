// Package corpus holds NADs and pods of real users, which work with Multus and so must work with
// Braid. README.md says what is expected of each file.
//
// Contract: All returns the objects of every file, decoded; a file without a Pod has one that names
// its NAD.
package corpus

import (
	"bytes"
	"embed"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

//go:embed *.yaml
var files embed.FS

// File is one file.
type File struct {
	// Name has no suffix: "01".
	Name string
	Text []byte
	NAD  nadv1.NetworkAttachmentDefinition
	Pods []corev1.Pod
}

// All returns the files by name.
func All() ([]File, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var all []File
	for _, e := range entries {
		f := File{Name: strings.TrimSuffix(e.Name(), ".yaml")}
		if f.Text, err = files.ReadFile(e.Name()); err != nil {
			return nil, err
		}
		if err := f.decode(); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, f)
	}
	return all, nil
}

func (f *File) decode() error {
	for document := range bytes.SplitSeq(f.Text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return err
		}
		if kind.Kind == nadv1.Kind {
			if err := yaml.UnmarshalStrict(document, &f.NAD); err != nil {
				return err
			}
			continue
		}
		var pod corev1.Pod
		if err := yaml.UnmarshalStrict(document, &pod); err != nil {
			return err
		}
		f.Pods = append(f.Pods, pod)
	}
	if f.Pods == nil {
		f.Pods = []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{
			Name: "pod-a", Namespace: f.NAD.Namespace,
			Annotations: map[string]string{nadv1.NetworksAnnotation: f.NAD.Namespace + "/" + f.NAD.Name},
		}}}
	}
	return nil
}
