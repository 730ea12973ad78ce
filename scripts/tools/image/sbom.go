package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	packageurl "github.com/package-url/packageurl-go"
)

// encodeSBOM returns a CycloneDX document of the platform's binaries: each is an application that
// depends on the modules linked into it, as its build information says.
func encodeSBOM(o *options, p *platform) ([]byte, error) {
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp:  o.time().Format(time.RFC3339),
		Lifecycles: &[]cdx.Lifecycle{{Phase: cdx.LifecyclePhaseBuild}},
	}
	root := cdx.Dependency{Dependencies: &[]string{}}
	components, dependencies := []cdx.Component{}, []cdx.Dependency{}
	for _, m := range p.modules {
		c := m.component()
		if m.path == p.main().path {
			c.Type, c.Version, c.PackageURL = cdx.ComponentTypeApplication, o.version, purl(m.path,
				o.version)
			bom.Metadata.Component, root.Ref = &c, c.BOMRef
			continue
		}
		components = append(components, c)
	}
	for _, one := range p.programs {
		c, err := one.component(p.arch, o.version)
		if err != nil {
			return nil, fmt.Errorf("describe %s: %w", one.name, err)
		}
		refs := []string{standard}
		for _, dep := range one.info.Deps {
			refs = append(refs, dep.Path)
		}
		components = append(components, c)
		*root.Dependencies = append(*root.Dependencies, c.BOMRef)
		dependencies = append(dependencies, cdx.Dependency{Ref: c.BOMRef, Dependencies: &refs})
	}
	dependencies = append(dependencies, root)
	bom.Components, bom.Dependencies = &components, &dependencies
	return encode(bom)
}

// encode writes a document in the version that scanners know.
func encode(bom *cdx.BOM) ([]byte, error) {
	var b bytes.Buffer
	err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).
		EncodeVersion(bom, cdx.SpecVersion1_6)
	if err != nil {
		return nil, fmt.Errorf("encode SBOM: %w", err)
	}
	return b.Bytes(), nil
}

// component describes a module. Its reference is its path: an image has one version of each.
func (m *module) component() cdx.Component {
	c := cdx.Component{
		BOMRef: m.path, Type: cdx.ComponentTypeLibrary, Name: m.path, Version: m.version,
		PackageURL: purl(m.path, m.version), Licenses: &cdx.Licenses{},
	}
	for _, id := range m.licenses {
		*c.Licenses = append(*c.Licenses, cdx.LicenseChoice{License: &cdx.License{ID: id}})
	}
	if m.sum != "" {
		c.Properties = &[]cdx.Property{{Name: "go.sum", Value: m.sum}}
	}
	return c
}

// component describes a binary, whose reference is its place in the image.
func (one *program) component(arch, version string) (cdx.Component, error) {
	data, err := os.ReadFile(one.path)
	if err != nil {
		return cdx.Component{}, err
	}
	sum := sha256.Sum256(data)
	return cdx.Component{
		BOMRef: "/" + one.name, Type: cdx.ComponentTypeApplication, Name: one.name, Version: version,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: &[]cdx.Property{
			{Name: "go.package", Value: one.info.Path},
			{Name: "platform", Value: "linux/" + arch},
		},
	}, nil
}

// purl is the name by which scanners know a module.
func purl(module, version string) string {
	space, name := path.Split(module)
	return packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(space, "/"), name,
		version, nil, "").ToString()
}
