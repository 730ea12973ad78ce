package strictjson_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// hostile are texts that a terminal would act on, or a reader be misled by.
func hostile() []string {
	return []string{
		"\x1b]0;owned\x07", "\x1b[2J", "a\nb", "a\r b", "\u009b31m", "\x7f", "\u202eevil",
		"\u2066x\u2069", "\U000e0041", "\xff\xfe", "\u200b", "\u2028",
	}
}

// shows reports whether a text is fit for a terminal.
func shows(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !strconv.IsPrint(r) && r != '\n' && r != '\t' || r == '\ufffd'
	})
}

// M35, "braidctl prints no escape sequences".
func TestM35PrintableWriter(t *testing.T) {
	for _, text := range hostile() {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(strictjson.PrintableWriter(&out), nil))
		log.Info(text, text, text, "value", fmt.Errorf("%s", text))
		if !shows(out.String()) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%q in a log: %q", text, out.String())
		}
		out.Reset()
		fmt.Fprintf(strictjson.PrintableWriter(&out), "a\tfür %s\nb\n", text)
		if !shows(out.String()) || !strings.HasPrefix(out.String(), "a\tfür ") ||
			!strings.HasSuffix(out.String(), "\nb\n") {
			t.Errorf("%q: %q", text, out.String())
		}
	}
}

func TestM35PrintableJSON(t *testing.T) {
	for _, text := range hostile() {
		data, err := json.MarshalIndent(map[string]any{"a": text, text: []string{text}}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		clean := strictjson.PrintableJSON(data)
		var before, after map[string]any
		if json.Unmarshal(data, &before) != nil || json.Unmarshal(clean, &after) != nil ||
			fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("%q: %s is not %s", text, clean, data)
		}
		if text != "\xff\xfe" && !shows(string(clean)) { // encoding/json has replaced that already
			t.Errorf("%q: %q", text, clean)
		}
	}
}
