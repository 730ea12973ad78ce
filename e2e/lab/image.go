package lab

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
)

// The images on every lab node. Both hold one static program, podtool (see its doc), as /tool. Pods
// must say imagePullPolicy: Never.
const (
	// the sandbox of every pod. A name without a registry would be looked up at one
	PauseImage = "localhost/pause:1"
	ToolImage  = "localhost/tool:1" // for the pods of tests: waits, or what its arguments say
)

// The annotations of an image in an archive.
const (
	imageName = "io.containerd.image.name"
	imageRef  = "org.opencontainers.image.ref.name" // what skopeo finds it by
)

// descriptor is an OCI content descriptor, as far as it is needed here.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ociArchive writes an OCI image layout as a tar: one image of one layer with one program, /tool,
// under several names.
func ociArchive(w io.Writer, program string, names ...string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	layer, err := tarball(map[string][]byte{"tool": binary}, []string{"tool"})
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	var l layout
	l.add("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	layerBlob := l.blob("layer.v1.tar", layer)
	config := l.blob("config.v1+json", encode(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/tool"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	}))
	manifest := l.blob("manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        config,
		"layers":        []descriptor{layerBlob},
	}))
	var manifests []descriptor
	for _, name := range names {
		named := manifest
		named.Annotations = map[string]string{imageName: name, imageRef: name}
		manifests = append(manifests, named)
	}
	l.add("index.json", encode(map[string]any{"schemaVersion": 2, "manifests": manifests}))
	archive, err := tarball(l.files, l.order)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	_, err = w.Write(archive)
	return err
}

// layout is the files of an OCI image layout, in the order of the archive.
type layout struct {
	files map[string][]byte
	order []string
}

// add adds a file.
func (l *layout) add(name string, content []byte) {
	if l.files == nil {
		l.files = map[string][]byte{}
	}
	l.files[name], l.order = content, append(l.order, name)
}

// blob adds content under its digest, and describes it.
func (l *layout) blob(mediaType string, content []byte) descriptor {
	sum := sha256.Sum256(content)
	digest := hex.EncodeToString(sum[:])
	l.add("blobs/sha256/"+digest, content)
	return descriptor{
		MediaType: "application/vnd.oci.image." + mediaType, Digest: "sha256:" + digest,
		Size: len(content),
	}
}

// encode marshals values that are made of maps, slices and strings here, and so cannot fail.
func encode(v any) []byte {
	data, _ := json.Marshal(v)
	return data
}

// tarball packs files in the order given, all executable.
func tarball(files map[string][]byte, order []string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range order {
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(files[name])),
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, err
		}
	}
	err := w.Close() // which writes the end
	return b.Bytes(), err
}
