package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// sbomFile is where an image has its SBOM.
const sbomFile = "sbom.cdx.json"

// file is one of a layer.
type file struct {
	mode int64
	data []byte
}

// plainImage is an image that an index describes as an image. The library takes each for an
// artifact whose type is that of its configuration.
type plainImage struct{ v1.Image }

// ArtifactType is asked for when an index gets a descriptor.
func (plainImage) ArtifactType() (string, error) { return "", nil }

// index returns an index of one image for each platform.
func (o *options) index(platforms []*platform) (v1.ImageIndex, error) {
	annotations := o.annotations(platforms[0])
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range platforms {
		img, err := o.image(p)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        plainImage{mutate.Annotations(img, annotations).(v1.Image)},
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: p.arch}},
		})
	}
	return mutate.Annotations(index, annotations).(v1.ImageIndex), nil
}

// annotations are those of the OCI image specification, on the index and on each image, where they
// are labels, too.
func (o *options) annotations(p *platform) map[string]string {
	main := p.main()
	annotations := map[string]string{
		"org.opencontainers.image.title": path.Base(main.path),
		"org.opencontainers.image.description": "Several network interfaces for Kubernetes pods: " +
			p.names(),
		"org.opencontainers.image.version":  o.version,
		"org.opencontainers.image.created":  o.time().Format(time.RFC3339),
		"org.opencontainers.image.source":   "https://" + main.path,
		"org.opencontainers.image.licenses": expression(main.licenses),
	}
	if o.revision != "" {
		annotations["org.opencontainers.image.revision"] = o.revision
	}
	return annotations
}

// image returns the platform's image. It has no entry point: the command names one of the binaries.
// Each is a layer of its own, so that a registry shows what it costs.
func (o *options) image(p *platform) (v1.Image, error) {
	layers, err := o.layers(p)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		types.OCIConfigJSON)
	img, err = mutate.Append(img, layers...)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", p.arch, v1.Time{Time: o.time()}
	config.Config = v1.Config{Env: []string{"PATH=/"}, WorkingDir: "/", Labels: o.annotations(p)}
	return mutate.ConfigFile(img, config)
}

// layers returns the layers of the platform's image: the licenses, then each binary.
func (o *options) layers(p *platform) ([]mutate.Addendum, error) {
	names, contents := []string{"licenses"}, []map[string]file{p.documents()}
	for _, one := range p.programs {
		data, err := os.ReadFile(one.path)
		if err != nil {
			return nil, err
		}
		names = append(names, one.name)
		contents = append(contents, map[string]file{one.name: {0o755, data}})
	}
	layers := make([]mutate.Addendum, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() (err error) {
			layers[i].History = v1.History{Created: v1.Time{Time: o.time()}, CreatedBy: name}
			layers[i].Layer, err = o.layer(contents[i])
			return err
		})
	}
	return layers, group.Wait()
}

// documents are the files beside the binaries.
func (p *platform) documents() map[string]file {
	files := map[string]file{sbomFile: {0o644, p.sbom}}
	for _, m := range p.modules {
		for name, data := range m.files {
			files[path.Join("licenses", m.path, name)] = file{0o644, data}
		}
	}
	return files
}

// layer packs files and their directories.
func (o *options) layer(files map[string]file) (v1.Layer, error) {
	for _, name := range slices.Collect(maps.Keys(files)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			files[dir+"/"] = file{mode: 0o755}
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := addEntry(w, name, files[name], o.time()); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.DefaultCompression),
		tarball.WithCompressedCaching,
	)
}

// addEntry adds a file, or a directory if the name ends in a slash, that belongs to root.
func addEntry(w *tar.Writer, name string, f file, changed time.Time) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: f.mode, Size: int64(len(f.data)), ModTime: changed,
	}
	if name[len(name)-1] == '/' {
		header.Typeflag = tar.TypeDir
	}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	if _, err := w.Write(f.data); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	return nil
}
