package defaultnet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is on nodes, as its makers write it.
const (
	flannel = `{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel",` +
		`"delegate":{"isDefaultGateway":true}},{"type":"portmap"}]}`
	calico = `{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico",` +
		`"ipam":{"type":"calico-ipam"}}]}`
	aConf = `{"name":"bridge","cniVersion":"0.3.1","type":"bridge","bridge":"bridge",` +
		`"ipam":{"type":"host-local","subnet":"10.244.0.0/16"}}`
	multus = `{"name":"multus-cni-network","cniVersion":"0.3.1","type":"multus",` +
		`"delegates":[{"type":"x"}]}`
	shim  = `{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"multus-shim"}]}`
	braid = `{"name":"braid","cniVersion":"1.0.0","plugins":[{"type":"braid",` +
		`"clusterNetwork":"/etc/cni/net.d/10-x.conflist"}]}`
	podman = `{"cniVersion":"0.4.0","name":"podman","plugins":[{"type":"bridge",` +
		`"bridge":"cni-podman0","ipam":{"type":"host-local","subnet":"10.88.0.0/16"}}]}`
	podman1 = `{"args":{"podman_labels":{"a":"b"}},"cniVersion":"0.4.0","name":"mine",` +
		`"plugins":[{"type":"macvlan","ipam":{"type":"dhcp"}}]}`
	crio = `{"cniVersion":"1.0.0","name":"crio","plugins":[{"type":"bridge","bridge":"cni0",` +
		`"ipam":{"type":"host-local","subnet":"10.85.0.0/16"}}]}`
	crioOld = `{"cniVersion":"0.3.1","name":"crio","type":"bridge","bridge":"cni0",` +
		`"ipam":{"type":"host-local","subnet":"10.85.0.0/16"}}`
	nerdctl = `{"cniVersion":"1.0.0","name":"bridge","nerdctlID":"17f2","nerdctlLabels":{},` +
		`"plugins":[{"type":"bridge","bridge":"nerdctl0"}]}`
	loop = `{"cniVersion":"0.3.1","name":"loopback","type":"loopback"}`
	cut  = `{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"fla`
)

// put makes a directory of files, each from pairs of name and content, as written long ago.
func put(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		write(t, filepath.Join(dir, files[i]), files[i+1], time.Hour)
	}
	return dir
}

func write(t *testing.T, path, content string, age time.Duration) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
	must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-age)))
}

func TestFind(t *testing.T) {
	for name, test := range map[string]find{
		"first": {
			files: []string{"10-flannel.conflist", flannel, "05-calico.conflist", calico},
			want:  "05-calico.conflist",
		},
		"the runtimes' order, not conflists first": {
			files: []string{"10-flannel.conflist", flannel, "1-k8s.conf", aConf}, want: "1-k8s.conf",
		},
		"not Braid": {
			files: []string{"00-braid.conflist", braid, "10-flannel.conflist", flannel},
			want:  "10-flannel.conflist",
		},
		"meta plugins by type": {
			files: []string{
				"00-a.conflist", shim, "01-b.conf", multus, "02-c.json", braid, "10-multus.conflist", flannel,
			}, want: "10-multus.conflist",
		},
		"stop-gaps by content": {
			files: []string{
				"01.conflist", podman, "02.conflist", podman1, "03.conflist", crio, "04.conf", crioOld,
				"05.conf", loop, "06.conflist", nerdctl,
				"87-podman-bridge.conflist", flannel,
			}, want: "87-podman-bridge.conflist",
		},
		"no suffix of a configuration": {
			files: []string{"05-cilium.conflist.cilium_bak", calico, "10-x.conflist.bak", calico},
			says:  []string{"no default network"},
		},
		"broken": {
			files: []string{"05-x.conflist", cut, "10-flannel.conflist", flannel},
			want:  "10-flannel.conflist",
		},
		"no name": {
			files: []string{"05-x.conf", `{"type":"bridge"}`},
			says:  []string{"05-x.conf is not valid: it has no name"},
		},
		"nothing to choose": {
			files: []string{"00-multus.conf", multus, "87-podman-bridge.conflist", podman, "90.conf", cut},
			says: []string{
				"00-multus.conf is of the meta plugin multus", "87-podman-bridge.conflist is podman's own",
				"90.conf is not valid", "see that",
			},
		},
		"empty": {says: []string{"no default network"}},
		"by name": {
			files: []string{"05-calico.conflist", calico, "10-flannel.conflist", flannel},
			named: "cbr0", want: "10-flannel.conflist",
		},
		"by file": {
			files: []string{"05-calico.conflist", calico, "10-flannel.conflist", flannel},
			named: "10-flannel.conflist", want: "10-flannel.conflist",
		},
		"stop-gap meant": {
			files: []string{"05-calico.conflist", calico, "11-crio.conflist", crio},
			named: "crio", want: "11-crio.conflist",
		},
		"named, not there": {
			files: []string{"05-calico.conflist", calico}, named: "cbr0",
			says: []string{`no network "cbr0"`},
		},
		"named, broken": {
			files: []string{"05-calico.conflist", calico, "10-flannel.conflist", cut},
			named: "10-flannel.conflist", says: []string{"10-flannel", "not valid"},
		},
		"named, meta": {
			files: []string{"05-calico.conflist", calico, "00-multus.conf", multus},
			named: "multus-cni-network", says: []string{"meta plugin multus", "name the network"},
		},
	} {
		t.Run(name, test.test)
	}
}

// find is a directory of configurations and the default network in it.
type find struct {
	files []string
	named string
	want  string   // the file's name
	says  []string // what the error says
}

func (test find) test(t *testing.T) {
	f := &defaultnet.Finder{Dirs: []string{put(t, test.files...)}, Named: test.named}
	c, err := f.Find("")
	if test.want != "" && (err != nil || c.Path != filepath.Join(f.Dirs[0], test.want)) {
		t.Fatalf("found %+v, %v, want %s", c, err, test.want)
	}
	for _, say := range test.says {
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("found %+v, error %v does not say %q", c, err, say)
		}
	}
	meta := test.named == "multus-cni-network"
	if err != nil && !meta && failure.ReasonOf(err) != failure.NotReady {
		t.Errorf("reason is %q, want %q", failure.ReasonOf(err), failure.NotReady)
	}
}

// A directory of the default network's own comes first.
func TestFindPrivate(t *testing.T) {
	private, runtime := put(t, "10-flannel.conflist", flannel), put(t, "05-calico.conflist", calico)
	f := &defaultnet.Finder{Dirs: []string{private, runtime}}
	if c, err := f.Find(""); err != nil || filepath.Dir(c.Path) != private || c.Name != "cbr0" {
		t.Errorf("found %+v, %v", c, err)
	}
	f.Dirs[0] += "x"
	if c, err := f.Find(""); err != nil || filepath.Dir(c.Path) != runtime {
		t.Errorf("found %+v, %v", c, err)
	}
}

func TestFindByPath(t *testing.T) {
	dir := put(t, "f", flannel, "m.conf", multus)
	for file, want := range map[string]failure.Reason{
		"f": "", "m.conf": failure.InvalidConfig, "nothing": failure.NotReady, "": failure.NotReady,
	} {
		f := &defaultnet.Finder{
			Dirs: []string{put(t, "05-calico.conflist", calico)}, Named: filepath.Join(dir, file),
		}
		c, err := f.Find("")
		if failure.ReasonOf(err) != want || err == nil && c.Path != f.Named {
			t.Errorf("%q: found %+v, %v", file, c, err)
		}
	}
}

// While a file is being written, no other takes its place.
func TestFindWaits(t *testing.T) {
	dir := put(t, "10-flannel.conflist", flannel)
	first := filepath.Join(dir, "05-calico.conflist")
	now := time.Now()
	f := &defaultnet.Finder{Dirs: []string{dir}, Now: func() time.Time { return now }}
	// a clock that was set
	for age, waits := range map[time.Duration]bool{
		time.Second: true, 10 * time.Second: false, -time.Hour: false,
	} {
		write(t, first, cut, age)
		c, err := f.Find("")
		if waits != (failure.ReasonOf(err) == failure.NotReady) ||
			!waits && filepath.Base(c.Path) != "10-flannel.conflist" {
			t.Errorf("age %v: found %+v, %v", age, c, err)
		}
	}
	// That which is in use is waited for, however long.
	_, err := f.Find(first)
	if failure.ReasonOf(err) != failure.NotReady || !strings.Contains(err.Error(), "incomplete") {
		t.Errorf("in use: %v", err)
	}
	write(t, first, calico, 0)
	if c, err := f.Find(filepath.Join(dir, "10-flannel.conflist")); err != nil || c.Path != first {
		t.Errorf("an earlier one came: %+v, %v", c, err)
	}
	must(t, os.Remove(first))
	if c, err := f.Find(first); err != nil || filepath.Base(c.Path) != "10-flannel.conflist" {
		t.Errorf("it is gone: %+v, %v", c, err)
	}
}

// Braid's own file is not waited for.
func TestFindNotOwn(t *testing.T) {
	dir := put(t, "10-flannel.conflist", flannel)
	own := filepath.Join(dir, "00-braid.conflist")
	write(t, own, cut, 0)
	c, err := (&defaultnet.Finder{Dirs: []string{dir}, Own: []string{own}}).Find(own)
	if err != nil || c.Name != "cbr0" {
		t.Errorf("found %+v, %v", c, err)
	}
}

func TestListOdd(t *testing.T) {
	dir := put(t, "10-flannel.conflist", flannel)
	must(t, os.Mkdir(filepath.Join(dir, "00-dir.conf"), 0o700))
	must(t, unix.Mkfifo(filepath.Join(dir, "01-fifo.conf"), 0o600))
	must(t, os.Symlink("10-flannel.conflist", filepath.Join(dir, "05-link.conf")))
	must(t, os.Symlink("nothing", filepath.Join(dir, "06-dangling.conf")))
	all, err := defaultnet.List(dir)
	got := ""
	for _, c := range all {
		got += fmt.Sprintln(filepath.Base(c.Path), c.Name, c.Invalid)
	}
	want := "01-fifo.conf  true\n05-link.conf cbr0 false\n06-dangling.conf  " +
		"true\n10-flannel.conflist cbr0 false\n"
	if err != nil || got != want {
		t.Errorf("got\n%s%v, want\n%s", got, err, want)
	}
	_, err = defaultnet.List(filepath.Join(dir, "10-flannel.conflist"))
	if failure.ReasonOf(err) != failure.NotReady {
		t.Errorf("a file: %v", err)
	}
}

func ExampleFinder() {
	dir, err := os.MkdirTemp("", "braid")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for name, content := range map[string]string{
		"00-multus.conf": multus, "10-flannel.conflist": flannel, "87-podman.conflist": podman,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			panic(err)
		}
	}
	network, err := (&defaultnet.Finder{Dirs: []string{dir}}).Find("")
	fmt.Println(network.Name, err)
	// Output: cbr0 <nil>
}
