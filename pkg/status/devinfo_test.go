package status_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/status"
)

const pciInfo = `{"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:01:02.2", ` +
	`"pf-pci-address": "0000:01:02.0"}, "later": 1}`

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// D1, "types and their sub-maps".
func TestD1Types(t *testing.T) {
	for name, tc := range map[string]struct{ text, wrong string }{
		"pci": {pciInfo, ""},
		"vdpa": {`{"type": "vdpa", "version": "1.1.0", ` +
			`"vdpa": {"parent-device": "vdpa3", "driver": "vhost", "path": "/dev/vhost-vdpa0"}}`, ""},
		"vhost-user": {`{"type": "vhost-user", "version": "1.0.0", ` +
			`"vhost-user": {"mode": "server", "path": "/run/v.sock"}}`, ""},
		"memif": {`{"type": "memif", "version": "1.0.0", "memif": {"role": "slave", ` +
			`"path": "/run/m.sock", "mode": "inject-punt"}}`, ""},
		"unknown type":       {`{"type": "usb", "version": "1.1.0"}`, "type"},
		"no type":            {`{"version": "1.1.0", "pci": {"pci-address": "0000:01:02.2"}}`, "type"},
		"no version":         {`{"type": "pci", "pci": {"pci-address": "0000:01:02.2"}}`, "version"},
		"sub-map of another": {`{"type": "pci", "version": "1.1.0", "vdpa": {}}`, "pci"},
		"no pci address":     {`{"type": "pci", "version": "1.1.0", "pci": {}}`, "pci.pci-address"},
		"bad pf address": {`{"type": "pci", "version": "1.1.0", ` +
			`"pci": {"pci-address": "0000:01:02.2", "pf-pci-address": "x"}}`, "pci.pf-pci-address"},
		"bad driver": {`{"type": "vdpa", "version": "1.1.0", "vdpa": {"parent-device": "v", ` +
			`"driver": "x", "path": "/p"}}`, "vdpa.driver"},
		"bad mode": {`{"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "x", ` +
			`"path": "/p"}}`, "vhost-user.mode"},
		"bad role": {`{"type": "memif", "version": "1.1.0", "memif": {"role": "x", ` +
			`"path": "/p", "mode": "ip"}}`, "memif.role"},
		"no memif":        {`{"type": "memif", "version": "1.1.0"}`, "memif"},
		"wrong JSON type": {`{"type": 1}`, "type"},
		"no JSON":         {`#`, "invalid character"},
		"empty file":      {``, "unexpected end"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.json")
			write(t, path, tc.text)
			info, err := status.LoadDeviceInfo(path)
			switch {
			case tc.wrong == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.wrong == "" && info.Type != name:
				t.Errorf("read as %+v", info)
			case tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong) || info != nil):
				t.Errorf("got %+v, %v; want an error about %s", info, err, tc.wrong)
			}
		})
	}
}

func TestD1OnlyRegularFilesOfSensibleSize(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target.json")
	write(t, target, pciInfo)
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	big := filepath.Join(dir, "big")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, big, pciInfo+strings.Repeat(" ", 10<<20))
	for path, says := range map[string]string{
		link: "not a regular file", pipe: "not a regular file", dir: "not a regular file", big: "at most",
	} {
		done := make(chan error, 1)
		go func() {
			_, err := status.LoadDeviceInfo(path)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %s", filepath.Base(path), err, says)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s blocks", filepath.Base(path))
		}
	}
	if info, err := status.LoadDeviceInfo(filepath.Join(dir, "absent")); info != nil || err != nil {
		t.Errorf("absent file: %v, %v", info, err)
	}
}

// D2, "file of the device plugin".
func TestD2DevicePluginFile(t *testing.T) {
	want(t, "path", status.DPFile(conf.DefaultDeviceInfoDir, "intel.com/sriov", "0000:01:02.3"),
		"/var/run/k8s.cni.cncf.io/devinfo/dp/intel.com-sriov-0000:01:02.3-device.json")
	for _, hostile := range []string{"../../../etc/passwd", "..", ".", "/", "", "a/../b"} {
		got := status.DPFile("/d", hostile, hostile)
		if filepath.Dir(got) != "/d/dp" {
			t.Errorf("%q leads to %s", hostile, got)
		}
	}
}

// D3, "CNI file, removed on DEL".
func TestD3CNIFile(t *testing.T) {
	want(t, "path", status.CNIFile("/d", "c0ffee", "net1"), "/d/cni/c0ffee:net1-device.json")
	for _, hostile := range []string{"../../../etc/passwd", "..", ".", "/", "", "a/../b"} {
		if got := status.CNIFile("/d", hostile, hostile); filepath.Dir(got) != "/d/cni" {
			t.Errorf("%q leads to %s", hostile, got)
		}
	}
	if status.CNIFile("/d", "a-b", "c") == status.CNIFile("/d", "a", "b-c") {
		t.Error("two attachments share a file")
	}
}

func TestD3FileIsRemovedOnDEL(t *testing.T) {
	dir := t.TempDir()
	path := status.CNIFile(dir, "c0ffee", "net1")
	write(t, path, pciInfo)
	write(t, path+".tmp", "what a crash left")
	for range 2 { // a DEL may come again
		if err := status.CleanDeviceInfo(path); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(left) != 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	}
	err := status.CleanDeviceInfo(status.CNIFile(filepath.Join(dir, "never", "made"), "x"))
	if err != nil {
		t.Errorf("without the directory: %v", err)
	}
}

// D6, "merged into the status".
func TestD6DevicePluginFileReachesTheStatus(t *testing.T) {
	dir := t.TempDir()
	dp, cni := status.DPFile(dir, "intel.com/sriov", "0000:01:02.2"), status.CNIFile(dir, "c0ffee",
		"net1")
	write(t, dp, pciInfo)
	write(t, cni, "what a dead ADD left")
	write(t, cni+".tmp", "what a crash left")

	copied, err := status.CopyDeviceInfo(dp, cni)
	if !copied || err != nil {
		t.Fatalf("copy: %v, %v", copied, err)
	}
	raw, err := os.ReadFile(cni)
	if err != nil || string(raw) != pciInfo {
		t.Errorf("the CNI file is no copy: %s, %v", raw, err)
	}
	if _, err := os.Stat(cni + ".tmp"); err == nil {
		t.Error("temporary file left")
	}
	info, err := status.LoadDeviceInfo(cni)
	if err != nil {
		t.Fatal(err)
	}
	got := status.Build([]status.Result{{Attachment: net1, DeviceInfo: info}})
	want(t, "device-info", got[0].DeviceInfo, &nadv1.DeviceInfo{
		Type: "pci", Version: "1.1.0",
		PCI: &nadv1.PCIDevice{PCIAddress: "0000:01:02.2", PFPCIAddress: "0000:01:02.0"},
	})
}

func TestD6NothingToCopy(t *testing.T) {
	dir := t.TempDir()
	cni := status.CNIFile(dir, "c0ffee", "net1")
	for _, dpText := range []string{"", "broken"} {
		dp := status.DPFile(dir, "r", "d"+dpText)
		if dpText != "" {
			write(t, dp, dpText)
		}
		write(t, cni, pciInfo)
		copied, err := status.CopyDeviceInfo(dp, cni)
		if copied || (err != nil) != (dpText != "") {
			t.Errorf("%q: %v, %v", dpText, copied, err)
		}
		if _, err := os.Stat(cni); err == nil {
			t.Errorf("%q: a stale CNI file is left for the plugins to read", dpText)
		}
	}
}
