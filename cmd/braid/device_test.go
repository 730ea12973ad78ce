package main

import (
	"os"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const describe = `file=$(sed 's/.*"CNIDeviceInfoFile":"\([^"]*\)".*/\1/' "$stdin")
[ "$CNI_COMMAND" != ADD ] || echo '{"type":"memif","version":"1.1.0","memif":{"role":"master","path":"/run/m.sock","mode":"ethernet"}}' >"$file"`

// A plugin that declares the capability gets a file to describe its device in (D5), the status has what it wrote (D6), and DEL
// removes the file (D3).
func TestD5DeviceInfoFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", describe)
	r.nad("a", `{"cniVersion":"1.0.0","type":"one","capabilities":{"CNIDeviceInfoFile":true}}`)
	p := r.pod("p", "a")
	r.add(p)
	info := r.status(p)[1].DeviceInfo
	if info == nil || info.Memif == nil {
		t.Fatalf("no device-info in the status: %+v", info)
	}
	same(t, "status", *info.Memif, nadv1.MemifDevice{Role: "master", Path: "/run/m.sock", Mode: "ethernet"})
	file, _ := runtimeConfigOf(r.stdin("one", "ADD", p, "net1"))["CNIDeviceInfoFile"].(string)
	if !strings.HasPrefix(file, r.path("devinfo/cni")+"/") {
		t.Errorf("file: %q", file)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	r.must("DEL", p)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", file, err)
	}
	same(t, "file on DEL", runtimeConfigOf(r.stdin("one", "DEL", p, "net1"))["CNIDeviceInfoFile"], any(file))
}

func TestD5OnlyWhereDeclared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p := r.pod("p", "a")
	r.add(p)
	same(t, "runtimeConfig", len(runtimeConfigOf(r.stdin("one", "ADD", p, "net1"))), 0)
	same(t, "device-info", r.status(p)[1].DeviceInfo, nil)
}
