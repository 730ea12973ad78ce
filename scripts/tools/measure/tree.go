package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// widest is the number of columns that a line may have. A tab counts as one, as in golangci-lint.
const widest = 100

// A tree holds what was counted in the files beneath a directory. All but tests is about files that
// are no tests.
type tree struct {
	lengths    []int // lines of each function with a body, its signature and braces included
	ways       []int // cyclomatic complexity of each
	files      []int // lines of each file
	code       int   // lines that are neither blank nor comment alone
	comments   int   // lines of comment alone
	lines      int
	wide       int
	dropped    int // statements that assign nothing but blanks
	exported   int // top-level names and methods of exported types
	documented int // those with a comment
	tests      int // lines of code in tests
}

// read counts what is beneath dir.
func read(dir string) (tree, error) {
	var t tree
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != dir && isForeign(entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return t.add(path, src)
	})
	return t, err
}

// isForeign reports whether what is in a directory of that name is not the tree's own code.
func isForeign(name string) bool {
	return name == "vendor" || name == "testdata" || strings.HasPrefix(name, ".")
}

// add counts one file.
func (t *tree) add(path string, src []byte) error {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
	if err != nil {
		return err
	}
	if ast.IsGenerated(file) {
		return nil
	}
	lines := bytes.Split(bytes.TrimSuffix(src, []byte("\n")), []byte("\n"))
	code, comments := split(lines, fset, file)
	if strings.HasSuffix(path, "_test.go") {
		t.tests += code
		return nil
	}
	t.code += code
	t.comments += comments
	t.lines += len(lines)
	t.files = append(t.files, len(lines))
	t.wide += count(lines, func(line []byte) bool { return utf8.RuneCount(line) > widest })
	for _, decl := range file.Decls {
		t.declaration(fset, decl)
	}
	t.dropped += countNodes(file, drops)
	return nil
}

// drops reports whether a node is a statement that assigns nothing but blanks.
func drops(n ast.Node) bool {
	assign, ok := n.(*ast.AssignStmt)
	return ok && !slices.ContainsFunc(assign.Lhs, notBlank)
}

// notBlank reports whether what is assigned to can be read again.
func notBlank(e ast.Expr) bool {
	name, ok := e.(*ast.Ident)
	return !ok || name.Name != "_"
}

// count returns how many elements of a list are so.
func count[T any](list []T, is func(T) bool) (n int) {
	for _, element := range list {
		if is(element) {
			n++
		}
	}
	return n
}

// countNodes returns how many nodes below one, itself included, are so.
func countNodes(root ast.Node, is func(ast.Node) bool) (n int) {
	ast.Inspect(root, func(node ast.Node) bool {
		if is(node) {
			n++
		}
		return true
	})
	return n
}

// split returns the number of lines with code, and of those with a comment alone.
func split(lines [][]byte, fset *token.FileSet, file *ast.File) (code, comments int) {
	commented := commentLines(lines, fset, file)
	for i, line := range lines {
		switch {
		case commented[i]:
			comments++
		case len(bytes.TrimSpace(line)) > 0:
			code++
		}
	}
	return code, comments
}

// commentLines returns for each line whether it is a comment alone.
func commentLines(lines [][]byte, fset *token.FileSet, file *ast.File) []bool {
	commented := make([]bool, len(lines))
	for _, group := range file.Comments {
		for _, c := range group.List {
			from, to := fset.PositionFor(c.Pos(), false), fset.PositionFor(c.End(), false)
			if len(bytes.TrimSpace(lines[from.Line-1][:from.Column-1])) > 0 {
				continue // behind code
			}
			for i := from.Line - 1; i < to.Line && i < len(lines); i++ {
				commented[i] = true
			}
		}
	}
	return commented
}

// declaration counts a function, and the exported names that a declaration is of.
func (t *tree) declaration(fset *token.FileSet, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Body != nil {
			t.lengths = append(t.lengths, fset.Position(d.End()).Line-fset.Position(d.Pos()).Line+1)
			t.ways = append(t.ways, ways(d.Body))
		}
		if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type))) {
			t.name(d.Doc)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			t.spec(d.Doc, spec)
		}
	}
}

// spec counts a type, or variables, with the comment of the declaration around.
func (t *tree) spec(doc *ast.CommentGroup, spec ast.Spec) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() {
			t.name(doc, s.Doc, s.Comment)
		}
	case *ast.ValueSpec:
		if slices.ContainsFunc(s.Names, (*ast.Ident).IsExported) {
			t.name(doc, s.Doc, s.Comment)
		}
	}
}

// name counts an exported name that has the comments.
func (t *tree) name(comments ...*ast.CommentGroup) {
	t.exported++
	if slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return c != nil }) {
		t.documented++
	}
}

// receiver returns the name of a receiver's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	}
	return ""
}

// ways returns the cyclomatic complexity of a body as gocyclo has it: one, and one more for each
// if, for, case, && and ||.
func ways(body *ast.BlockStmt) int { return 1 + countNodes(body, branches) }

// branches reports whether a node adds a way.
func branches(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
		return true
	case *ast.CaseClause:
		return node.List != nil
	case *ast.CommClause:
		return node.Comm != nil
	case *ast.BinaryExpr:
		return node.Op == token.LAND || node.Op == token.LOR
	}
	return false
}
