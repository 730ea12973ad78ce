package invoke

import (
	"fmt"
	"strings"

	"github.com/braid-cni/braid/pkg/weaken"
)

const (
	// maxStdout bounds what a plugin prints, in bytes. Results that people meet have some hundreds.
	maxStdout = 1 << 20
	// maxStderr bounds what an error quotes of a plugin's stderr, in bytes.
	maxStderr = 2048
	// maxText bounds each of the texts of a plugin's own error, in bytes. They are logged, recorded
	// and told to people.
	maxText = 4096
)

// errTooMuch means that a plugin printed more than maxStdout.
var errTooMuch = fmt.Errorf("it printed more than %d bytes, and was killed", maxStdout)

// bounded keeps what a plugin prints, up to maxStdout. More than that ends the plugin: nobody reads
// on, and full is called.
type bounded struct {
	data []byte
	full func()
}

func (b *bounded) Write(p []byte) (int, error) {
	room := maxStdout - len(b.data)
	if len(p) <= room || weaken.Off(weaken.Output) {
		b.data = append(b.data, p...)
		return len(p), nil
	}
	b.data = append(b.data, p[:room]...)
	b.full()
	return room, errTooMuch
}

// tail keeps the end of what a plugin writes to stderr. All of it is read, so that the plugin goes
// on.
type tail struct {
	data []byte
	// cut is true if something is missing before data.
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[max(len(p)-2*maxStderr, 0):]...)
	t.cut = t.cut || len(p) > 2*maxStderr
	if over := len(t.data) - 2*maxStderr; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// text returns what an error quotes.
func (t *tail) text() string {
	text := strings.TrimSpace(string(t.data))
	if len(text) > maxStderr {
		return "..." + text[len(text)-maxStderr:]
	}
	if t.cut {
		return "..." + text
	}
	return text
}

// short returns a plugin's text, which it may have ended in the middle of a character.
func short(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "..."
}
