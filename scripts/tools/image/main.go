// Command image makes a container image of static Go binaries without a container engine.
//
//	image -binaries DIR -source DIR -out DIR -name NAME -version VERSION -created SECONDS
//		[-revision COMMIT] [-push REFERENCE]
//
// DIR/ARCH of -binaries holds the binaries of one architecture and nothing else. -source is the
// module that they were built from: it has their license, and names the modules whose licenses go
// along. Into -out go
//
//	oci/                          an OCI image layout: one index, one image for each architecture
//	NAME.tar                      the same as one file; NAME is the last element of -name
//	sbom-linux-ARCH.cdx.json      CycloneDX: what the binaries are made of
//
// An image holds /BINARY for each binary, /licenses/MODULE/..., /sbom.cdx.json, and nothing else.
// All that it depends on is the input: the same binaries make the same bytes, wherever and
// whenever.
//
// A binary is refused that is not static, is of another architecture, was built without -trimpath,
// or does not print VERSION when called with --version; and so is a module without a license that
// is known and permitted, or that the source has in another version or with another sum.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command line.
type options struct {
	binaries, source, out   string
	name, version, revision string
	created                 int64
	push                    string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if err != nil {
		return 2
	}
	if err := o.make(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "image:", err)
		return 1
	}
	return 0
}

// parse reads the command line. What is wrong with it is printed.
func parse(args []string, stderr io.Writer) (*options, error) {
	o := new(options)
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.binaries, "binaries", "",
		"`directory` with a directory of binaries for each architecture")
	f.StringVar(&o.source, "source", "", "`directory` of the module that the binaries were built from")
	f.StringVar(&o.out, "out", "", "`directory` to write to")
	f.StringVar(&o.name, "name", "",
		"`name` of the image without its tag, for those who load the archive")
	f.StringVar(&o.version, "version", "", "`version` of the binaries, and the image's tag")
	f.StringVar(&o.revision, "revision", "", "`commit` that the binaries were built from")
	f.Int64Var(&o.created, "created", -1, "`seconds` since 1970: the time of all that has one")
	f.StringVar(&o.push, "push", "", "full `reference` to push the image to")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	err := o.check(f)
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return o, err
}

// check returns all that is wrong with the command line.
func (o *options) check(f *flag.FlagSet) (err error) {
	for _, name := range []string{"binaries", "source", "out", "name", "version"} {
		if f.Lookup(name).Value.String() == "" {
			err = errors.Join(err, fmt.Errorf("-%s is missing", name))
		}
	}
	if o.created < 0 {
		err = errors.Join(err, errors.New("-created is missing"))
	}
	if f.NArg() > 0 {
		err = errors.Join(err, fmt.Errorf("argument %q is unknown", f.Arg(0)))
	}
	return err
}

// make does all the work. The output directory is changed, and the registry asked, only when the
// image is complete.
func (o *options) make(ctx context.Context, stdout io.Writer) error {
	tags, err := o.tags()
	if err != nil {
		return err
	}
	platforms, err := readPlatforms(o.binaries)
	if err != nil {
		return err
	}
	for _, p := range platforms {
		if err := o.complete(ctx, p); err != nil {
			return err
		}
	}
	index, err := o.index(platforms)
	if err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	if err := o.write(index, platforms); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	if err := report(stdout, o.out, tags.local, index); err != nil {
		return err
	}
	if o.push == "" {
		return nil
	}
	return push(ctx, stdout, tags.remote, index)
}

// complete checks the version of the platform's binaries, and finds out what they are made of.
func (o *options) complete(ctx context.Context, p *platform) (err error) {
	if err := p.checkVersion(ctx, o.version); err != nil {
		return err
	}
	if p.modules, err = readModules(ctx, o.source, p); err != nil {
		return err
	}
	p.sbom, err = encodeSBOM(o, p)
	return err
}

// time returns the time of all that has one, so that the same input makes the same image.
func (o *options) time() time.Time { return time.Unix(o.created, 0).UTC() }
