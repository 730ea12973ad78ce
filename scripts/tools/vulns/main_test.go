package main

import (
	"bytes"
	"strings"
	"testing"
)

// required is what govulncheck says of a module that is merely required.
const required = `{"config": {"protocol_version": "v1.0.0"}}
{"osv": {"id": "GO-1", "summary": "it crashes"}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [{"module": "m", "version": "v1.1.0"}]}}
`

func TestRun(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		out  string
		code int
	}{
		"not reached": {in: required},
		"a module, twice": {
			in: required + strings.Repeat(`{"finding": {"osv": "GO-1", "fixed_version": "v1.2.0",
				"trace": [{"module": "m", "version": "v1.1.0", "function": "F"}, {"function": "main"}]}}`, 2),
			out:  "m v1.1.0: GO-1: it crashes; mended in v1.2.0\n",
			code: 1,
		},
		"standard library": {
			in: required + `{"finding": {"osv": "GO-2", "fixed_version": "v1.26.10",
				"trace": [{"module": "stdlib", "version": "v1.26.0", "function": "F"}]}}
				{"finding": {"osv": "GO-1", "fixed_version": "v1.26.9",
				"trace": [{"module": "stdlib", "version": "v1.26.0", "function": "F"}]}}`,
			out: "this Go's standard library has 2 that are reached; all of them are mended in v1.26.10\n",
		},
		"no output": {code: 2},
		"cut":       {in: required[:len(required)-9], code: 2},
	} {
		t.Run(name, func(t *testing.T) {
			var out, stderr bytes.Buffer
			code := run(strings.NewReader(test.in), &out, &stderr)
			if code != test.code || out.String() != test.out {
				t.Errorf("code %d, output %q, want %d and %q; %s", code, &out, test.code, test.out, &stderr)
			}
		})
	}
}
