package install_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/own"
)

// What does not run is not installed, and what there was stays.
func TestCheckPlugin(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	const good = "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && cat >/dev/null && echo " +
		"'{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}'\n"
	for content, works := range map[string]bool{
		good: true, "\x7fELF\x02\x01\x01 the rest is missing": false, "#!/bin/sh\nexit 1\n": false,
		"#!/bin/sh\necho '{}'\n": false,
		"#!/bin/sh\necho x\n":    false, "": false,
	} {
		path := filepath.Join(h.Place.Bin, "braid")
		f := own.Bytes(path, 0o755, install.KindBinary, []byte(content))
		f.Check = install.CheckPlugin("braid")
		h.Binaries = []*own.File{f}
		_, err := h.Apply(t.Context())
		if works != (err == nil) ||
			err != nil && (failure.ReasonOf(err) != failure.StateFailed ||
				!strings.Contains(err.Error(), "plugin braid")) {
			t.Errorf("%q: %v", content, err)
		}
		if !works {
			continue
		}
		if digest, err := h.Store.Sum(path); err != nil || digest != f.Digest {
			t.Errorf("installed is %s, %v", digest, err)
		}
	}
	for _, file := range names(t, h.Place.Bin) {
		if file != "braid" {
			t.Errorf("left is %s", file)
		}
	}
}
