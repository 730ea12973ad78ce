package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// tags are the names of the image: in the archive, and where to push it to.
type tags struct {
	local  name.Tag
	remote name.Reference
}

// tags parses the names before any work is done. A reference without a registry is refused: it
// would mean one that nobody named.
func (o *options) tags() (t tags, err error) {
	if t.local, err = name.NewTag(o.name+":"+o.version, name.StrictValidation); err != nil {
		return t, fmt.Errorf("name image: %w", err)
	}
	if o.push != "" {
		if t.remote, err = name.ParseReference(o.push, name.StrictValidation); err != nil {
			return t, fmt.Errorf("push image: %w", err)
		}
	}
	return t, nil
}

// write replaces what an earlier run made in the output directory, and nothing else there.
func (o *options) write(index v1.ImageIndex, platforms []*platform) (err error) {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.out, ".new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	oci := filepath.Join(work, "oci")
	if err := o.writeLayout(oci, index); err != nil {
		return err
	}
	if err := o.archive(oci, filepath.Join(work, o.archiveName())); err != nil {
		return err
	}
	for _, p := range platforms {
		err := os.WriteFile(filepath.Join(work, "sbom-linux-"+p.arch+".cdx.json"), p.sbom, 0o644)
		if err != nil {
			return err
		}
	}
	return moveAll(work, o.out)
}

// writeLayout makes an OCI image layout.
func (o *options) writeLayout(to string, index v1.ImageIndex) error {
	dir, err := layout.Write(to, empty.Index)
	if err != nil {
		return err
	}
	// The first is what containerd calls the image on import, the second what the OCI says.
	return dir.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          o.name + ":" + o.version,
		"org.opencontainers.image.ref.name": o.version,
	}))
}

// moveAll moves what is in a directory into another one of the same file system, in the place of
// what has the same names there.
func moveAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		final := filepath.Join(to, e.Name())
		if err := os.RemoveAll(final); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(from, e.Name()), final); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) archiveName() string { return path.Base(o.name) + ".tar" }

// archive packs a layout into a file.
func (o *options) archive(oci, to string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(oci, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == oci {
			return err
		}
		rel, err := filepath.Rel(oci, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return addEntry(w, rel+"/", file{mode: 0o755}, o.time())
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return addEntry(w, rel, file{0o644, data}, o.time())
	})
	return errors.Join(err, w.Close(), out.Close())
}

// report prints what was made: the index, and the images with what a node downloads of each.
func report(stdout io.Writer, out string, tag name.Tag, index v1.ImageIndex) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		text, err := describe(img)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "image: %s %s %s\n", d.Platform, d.Digest, text)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "image: %s %s in %s\n", tag, digest, out)
	return nil
}

// describe returns the compressed size of an image and its layers.
func describe(img v1.Image) (string, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	layers, err := img.Layers()
	if err != nil {
		return "", err
	}
	text, total := "", int64(0)
	for i, l := range layers {
		size, err := l.Size()
		if err != nil {
			return "", err
		}
		total += size
		text += fmt.Sprintf(", %s %.1f", config.History[i].CreatedBy, float64(size)/1e6)
	}
	return fmt.Sprintf("%.1f MB compressed (%s)", float64(total)/1e6, text[2:]), nil
}

// push pushes index and images with the credentials that the user's docker or podman login left,
// and asks the registry for what it has then.
func push(ctx context.Context, stdout io.Writer, ref name.Reference, index v1.ImageIndex) error {
	access := []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
	}
	if err := remote.WriteIndex(ref, index, access...); err != nil {
		return fmt.Errorf("push image: %w", err)
	}
	have, err := remote.Head(ref, access...)
	if err != nil {
		return fmt.Errorf("ask for pushed image: %w", err)
	}
	want, err := index.Digest()
	if err != nil {
		return err
	}
	if have.Digest != want {
		return fmt.Errorf("push image: %s is %s in the registry, not %s", ref, have.Digest, want)
	}
	fmt.Fprintf(stdout, "image: pushed %s@%s\n", ref.Context(), want)
	return nil
}
