package attack_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// mechanisms are the constants of pkg/weaken, as its source has them.
func mechanisms(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../pkg/weaken/weaken.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, value := range spec.Values {
			name, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return true
	})
	if len(names) < 10 {
		t.Fatalf("only %d mechanisms: looked in the wrong place", len(names))
	}
	return names
}

// TestReleaseCannotBeWeakened: what switches mechanisms off is not in the binaries that are
// released.
func TestReleaseCannotBeWeakened(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"braid", "braidctl"} {
		for bin, want := range map[string]bool{released(t).bin: false, weak(t).bin: true} {
			program, err := os.ReadFile(filepath.Join(bin, name))
			if err != nil {
				t.Fatal(err)
			}
			if has := bytes.Contains(program, []byte(weakened)); has != want {
				t.Errorf("%s/%s has %s: %t, want %t", bin, name, weakened, has, want)
			}
		}
	}
}
