package netconf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/internal/checktest"
)

// onDisk looks a network up and returns the types of its plugins, "not found" where there is none.
func onDisk(t *testing.T, dir, name string) string {
	t.Helper()
	raw, err := OnDisk(dir, name)
	if err != nil {
		checktest.Refused(t, err, failure.NetworkNotFound, "", name)
		return "not found"
	}
	list := mustParse(t, string(raw))
	checktest.Same(t, "name", list.Name(), name)
	checktest.Same(t, "the normal form", string(list.Bytes()), string(raw))
	return strings.Join(list.Types(), ",")
}

// S4, "without spec: the network of the object's name on disk".
func TestS4OnDisk(t *testing.T) {
	dir := files(t, map[string]string{
		"30-a.conflist": `{"name":"a","plugins":[{"type":"second"}]}`,
		"20-a.conflist": `{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"first",` +
			`"n":12345678901234567890}]}`,
		"10-a.conf":     `{"name":"a","type":"conf"}`, // a conflist goes first, whatever its name
		"10-b.json":     `{"name":"b","type":"json"}`,
		"20-b.conf":     `{"name":"b","type":"conf"}`,
		"nameless.conf": `{"type":"nameless"}`,
		"c.txt":         `{"name":"c","type":"other-extension"}`,
		"x.conf/x.conf": `{"name":"x","type":"in-a-directory"}`,
	})
	checktest.Same(t, "a", onDisk(t, dir, "a"), "first")
	checktest.Same(t, "b", onDisk(t, dir, "b"), "json")
	for _, name := range []string{"c", "x", "20-a", "nameless", "../a"} {
		checktest.Same(t, name, onDisk(t, dir, name), "not found")
	}
	_, err := OnDisk(dir, "")
	checktest.Refused(t, err, failure.NetworkNotFound, "")
	raw, err := OnDisk(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, raw, `{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"first",`+
		`"n":12345678901234567890}]}`)

	_, err = OnDisk(filepath.Join(dir, "absent"), "a")
	e := checktest.Refused(t, err, failure.NetworkNotFound, "", filepath.Join(dir, "absent"), `"a"`)
	checktest.Same(t, "NAD", e.NAD, "a")
}

// S6, "order of resolution; one bad file does not hide the others".
func TestS6OneBadFileDoesNotHideOthers(t *testing.T) {
	dir := files(t, map[string]string{
		"00-garbage.conflist": "not JSON", "01-empty.conflist": "",
		"02-cut.conflist":  `{"name":"a","plugins":[{"ty`,
		"03-huge.conflist": strings.Repeat(" ", MaxSize+1),
		"04-path.conflist": `{"name":"a","plugins":[{"type":"../x"}]}`,
		"99-good.conflist": `{"name":"a","plugins":[{"type":"good"}]}`, "00-garbage.conf": "{",
		"99-good.conf": `{"name":"b","type":"good"}`,
	})
	if err := os.Symlink("/nowhere", filepath.Join(dir, "05-dangling.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "06-fifo.conflist"), 0o600); err != nil {
		t.Fatal(err)
	}
	checktest.Same(t, "a", onDisk(t, dir, "a"), "good")
	checktest.Same(t, "b", onDisk(t, dir, "b"), "good")
	_, err := OnDisk(dir, "c")
	e := checktest.Refused(t, err, failure.NetworkNotFound, "", "00-garbage.conflist: line 1 column 2",
		"03-huge", "and 4 more)")
	checktest.Same(t, "NAD", e.NAD, "c")

	raw, err := FromFile(dir)
	if err != nil {
		t.Fatalf("FromFile: %v", err)
	}
	equal(t, raw, `{"name":"b","plugins":[{"type":"good"}]}`)
}

// C12, "subdirectory chaining".
func TestC12SubdirectoryChaining(t *testing.T) {
	dir := files(t, map[string]string{
		"a.conflist":  `{"name":"a","plugins":[{"type":"main"}]}`,
		"a/20-b.conf": `{"type":"b","n":12345678901234567890}`, "a/10-c.conf": `{"type":"c"}`,
		"a/30-no.conflist": `{"plugins":[{"type":"no"}]}`,
		"only.conflist":    `{"name":"only","loadOnlyInlinedPlugins":true,"plugins":[{"type":"main"}]}`,
		"only/x.conf":      `{"type":"x"}`,
		"none.conflist":    `{"name":"none"}`, "none/x.conf": `{"type":"x"}`,
		"empty.conflist":   `{"name":"empty"}`,
		"forbids.conflist": `{"name":"forbids","loadOnlyInlinedPlugins":true}`,
		"forbids/x.conf":   `{"type":"x"}`,
		// only lists are chained
		"conf.conf": `{"name":"conf","type":"main"}`, "conf/x.conf": `{"type":"x"}`,
		"broken.conflist": `{"name":"broken","plugins":[{"type":"main"}]}`,
		"broken/x.conf":   `{"type":"../x"}`,
		"file.conflist":   `{"name":"file","plugins":[{"type":"main"}]}`, "file": "a file of that name",
	})
	for name, want := range map[string]string{
		"a": "main,c,b", "only": "main", "none": "x", "empty": "not found", "forbids": "not found",
		"conf": "main", "broken": "not found", "file": "main",
	} {
		checktest.Same(t, name, onDisk(t, dir, name), want)
	}
	raw, err := FromFile(filepath.Join(dir, "a.conflist"))
	if err != nil {
		t.Fatalf("FromFile: %v", err)
	}
	equal(t, raw, `{"name":"a","plugins":[{"type":"main"},{"type":"c"},{"type":"b",`+
		`"n":12345678901234567890}]}`)

	broken := filepath.Join(dir, "broken", "x.conf")
	_, err = FromFile(filepath.Join(dir, "broken.conflist"))
	e := checktest.Refused(t, err, failure.InvalidConfig, "type", broken, `"../x"`)
	checktest.Same(t, "NAD", e.NAD, broken)
	_, err = FromFile(filepath.Join(dir, "empty.conflist"))
	checktest.Refused(t, err, failure.InvalidConfig, "plugins", "no plugins", dir)
}

func TestFromFile(t *testing.T) {
	dir := files(t, map[string]string{
		"00-braid.conf": `{"name":"node","type":"braid"}`, "05-x.txt": `{"type":"x"}`,
		"10-b.conf": `{"type":"b"}`, "20-a.conflist": `{"plugins":[{"type":"a"}]}`,
		"empty/x.txt": "", "bad/x.conf": `{"type":"x"`, "meta/x.conf": `{"type":"multus"}`,
	})
	for path, want := range map[string]string{
		"": `{"plugins":[{"type":"b"}]}`, "20-a.conflist": `{"plugins":[{"type":"a"}]}`,
		"05-x.txt": `{"plugins":[{"type":"x"}]}`,
	} {
		raw, err := FromFile(filepath.Join(dir, path))
		if err != nil {
			t.Errorf("FromFile(%s): %v", path, err)
			continue
		}
		equal(t, raw, want)
	}
	for path, say := range map[string]string{
		"absent": "no such file", "empty": "no CNI configuration in", "bad": "x.conf: line 1 column 11",
		"meta": "x.conf: plugin multus: field plugins[0].type: \"multus\" would call itself",
	} {
		path = filepath.Join(dir, path)
		_, err := FromFile(path)
		e := checktest.Refused(t, err, failure.NetworkNotFound, "", say)
		checktest.Same(t, "NAD", e.NAD, path)
	}
	path := filepath.Join(dir, "bad", "x.conf")
	_, err := FromFile(path)
	e := checktest.Refused(t, err, failure.InvalidConfig, "", "line 1 column 11")
	checktest.Same(t, "NAD", e.NAD, path)
	_, err = FromFile("/dev/null")
	checktest.Refused(t, err, failure.InvalidConfig, "", "/dev/null: it is no regular file")
}

func TestAuxiliaryChain(t *testing.T) {
	dir := files(t, map[string]string{
		"10-main.conflist": `{"name":"main","plugins":[{"type":"main"}]}`,
		"aux/20-b.conf":    `{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}`,
		"aux/10-a.conf":    `{"name":"a","type":"a"}`,
		"nothing/x.txt":    "", "broken/x.conf": "{", "broken/a.conf": `{"type":"a"}`,
	})
	for _, base := range []string{filepath.Join(dir, "10-main.conflist"), dir} {
		raw, err := AuxiliaryChain(base, "aux", "1.0.0")
		if err != nil {
			t.Fatalf("AuxiliaryChain: %v", err)
		}
		equal(t, raw, `{"name":"aux","cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"passthru","name":"passthru-cni"},
			{"name":"a","type":"a"},{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}]}`)
		for _, name := range []string{"", "nothing", "absent"} {
			raw, err := AuxiliaryChain(base, name, "1.0.0")
			if raw != nil || err != nil {
				t.Errorf("AuxiliaryChain %q: %s, %v; want nothing", name, raw, err)
			}
		}
		_, err = AuxiliaryChain(base, "broken", "1.0.0")
		e := checktest.Refused(t, err, failure.InvalidConfig, "", "line 1 column 1")
		checktest.Same(t, "NAD", e.NAD, filepath.Join(dir, "broken", "x.conf"))
	}
}

func ExampleOnDisk() {
	_, err := OnDisk("/nowhere", "storage")
	fmt.Println(failure.FixOf(err))
	// Output: put a CNI configuration there, or correct the name
}

// Whatever is in the place of a file, reading it ends, and the error names the path, what is there
// and what to do.
func TestReadFileOfStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{
		"fifo": "it is no regular file", ".": "it is no regular file", "none": "no such file",
	} {
		_, err := ReadFile(path(name))
		if failure.ReasonOf(err) != failure.InvalidConfig || !strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), path(name)) ||
			!strings.Contains(failure.FixOf(err), "that root can read") {
			t.Errorf("%s: %v, want %s", name, err, says)
		}
	}
	if err := os.WriteFile(path("long"), make([]byte, 2*MaxSize), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := ReadFile(path("long"))
	if err != nil || len(raw) != MaxSize+1 {
		t.Errorf("%d bytes of a long file, %v", len(raw), err)
	}
}
