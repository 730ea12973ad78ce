package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/agent/wire"
)

// frames are one of each type, with all the fields that the first version of the protocol has.
func frames() map[string]*wire.Frame {
	return map[string]*wire.Frame{
		wire.Hello: {
			Type: wire.Hello, Version: 1, Oldest: 1, Verb: wire.CNI, NetNS: true, Millis: 240000,
			Environ: wire.Environ([]string{"CNI_COMMAND=ADD", "CNI_ARGS=A=\xff\x01"}),
			Stdin:   []byte(`{"name":"braid"}`),
		},
		wire.Accepted: {Type: wire.Accepted, Version: 1},
		wire.Refused: {
			Type: wire.Refused, Version: 1,
			Reason: "a \"reason\"\twith \\ and \u00e9 \U0001f9f6",
		},
		wire.Go:      {Type: wire.Go},
		wire.Working: {Type: wire.Working},
		wire.Result:  {Type: wire.Result, Stdout: []byte("{}\n"), Stderr: []byte("warning\n"), Exit: 1},
	}
}

func read(t *testing.T, sent []byte) *wire.Frame {
	t.Helper()
	f, err := wire.Read(bytes.NewReader(sent))
	if err != nil {
		t.Fatalf("%q: %v", sent, err)
	}
	return f
}

func TestFramesArriveAsSent(t *testing.T) {
	for name, f := range frames() {
		sent := wire.Append([]byte("before"), f)
		if got := read(t, sent[len("before"):]); !reflect.DeepEqual(got, f) {
			t.Errorf("%s: %+v, want %+v", name, got, f)
		}
	}
	variables := []string{"A=1", "", "B=\n"}
	if got := wire.Variables(wire.Environ(variables)); !slices.Equal(got, variables) {
		t.Errorf("variables %q", got)
	}
}

// TestFirstVersion holds the protocol to the frames that the first version sent, which testdata has
// as text: clients and agents of that version are on nodes while these are, too.
func TestFirstVersion(t *testing.T) {
	for name, f := range frames() {
		text, err := os.ReadFile(filepath.Join("testdata/v1", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if sent := wire.Append(nil, f)[4:]; !reflect.DeepEqual(plain(t, sent), plain(t, text)) {
			t.Errorf("%s is sent as\n%s, and was\n%s", name, sent, text)
		}
		if got := read(t, framed(text)); !reflect.DeepEqual(got, f) {
			t.Errorf("%s is read as %+v, want %+v", name, got, f)
		}
	}
}

// plain is what an object says, however it is written.
func plain(t *testing.T, text []byte) (object map[string]any) {
	t.Helper()
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return object
}

func framed(text []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

// TestLaterVersion reads what a later version may send: more fields, in any order.
func TestLaterVersion(t *testing.T) {
	got := read(t,
		framed([]byte(` { "later" : "\ud83e\uddf6" , "type":"hello","n":-12,"b":{"c":[true]},`+
			`"verb" : null, "version":9 , "oldest":1} `)))
	if want := (&wire.Frame{Type: wire.Hello, Version: 9, Oldest: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestCutFrames: what ends within a frame is told from what ends between two.
func TestCutFrames(t *testing.T) {
	for name, f := range frames() {
		sent := wire.Append(nil, f)
		for n := range sent {
			_, err := wire.Read(bytes.NewReader(sent[:n]))
			if want := io.ErrUnexpectedEOF; n == 0 && !errors.Is(err, io.EOF) ||
				n > 0 && !errors.Is(err, want) {
				t.Errorf("%s cut after %d bytes: %v", name, n, err)
			}
		}
	}
}

// endless announces a frame and sends zeros.
type endless struct {
	head io.Reader
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	if n, err := e.head.Read(b); err == nil {
		return n, nil
	}
	e.read += len(b)
	return len(b), nil
}

func TestBadFrames(t *testing.T) {
	big := &endless{head: bytes.NewReader([]byte{0, 0x80, 0, 1})}
	if _, err := wire.Read(big); err == nil || big.read > 0 {
		t.Errorf("a frame of more than %d bytes: %v, after %d bytes", wire.MaxFrame, err, big.read)
	}
	if _, err := wire.Read(bytes.NewReader([]byte{0, 0x7f, 0xff, 0xff})); !errors.Is(err,
		io.ErrUnexpectedEOF) {
		t.Errorf("a length alone: %v", err)
	}
	for _, text := range []string{
		"", "{", "{}x", "[]", `{"type":"go",}`, `{"type"}`, `{"type":1}`, `{"stdin":"%"}`, `{"exit":"1"}`,
		`{"exit":01}`, `{"exit":1.5}`, `{"exit":99999999999999999999}`,
		`{"netns":"true"}`, "{\"type\":\"a\nb\"}", `{"type":"\x"}`, `{"type":"a`, `{type:1}`,
		`{"later":nul}`, strings.Repeat("{", 1<<16),
	} {
		if f, err := wire.Read(bytes.NewReader(framed([]byte(text)))); err == nil {
			t.Errorf("%.40s is read as %+v", text, f)
		}
	}
}
