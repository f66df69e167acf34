package tidy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is this module's path.
const module = "github.com/ashlarfs/ashlar"

// file is one Go file of the repository.
type file struct {
	path string // from the root, with slashes
	ast  *ast.File
	fset *token.FileSet
	text string
}

// test tells whether the file is only compiled into tests.
func (f *file) test() bool { return strings.HasSuffix(f.path, "_test.go") }

// pkg is the directory of the file from the root, "." for the root itself.
func (f *file) pkg() string { return path.Dir(f.path) }

// line is the line number of a position.
func (f *file) line(p token.Pos) int { return f.fset.Position(p).Line }

// imports lists the paths a file imports.
func (f *file) imports(t *testing.T) []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// root finds the root of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// skipDirs are not ours or not source.
var skipDirs = map[string]bool{".git": true, "bin": true, "run": true, "dist": true, "testdata": true}

// walk calls fn with every file of the repository, by path from the root.
func walk(t *testing.T, fn func(name string)) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != top && skipDirs[d.Name()] {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			rel, err := filepath.Rel(top, p)
			if err != nil {
				return err
			}
			fn(filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// files parses every Go file of the repository.
func files(t *testing.T) []*file {
	t.Helper()
	top := root(t)
	var out []*file
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		b, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		a, err := parser.ParseFile(fset, name, b, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &file{path: name, ast: a, fset: fset, text: string(b)})
	})
	return out
}
