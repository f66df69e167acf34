package tidy

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEveryPackageHasOneDoc(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range files(t) {
		if f.test() {
			continue
		}
		if _, ok := docs[f.pkg()]; !ok {
			docs[f.pkg()] = nil
		}
		if f.ast.Doc != nil {
			docs[f.pkg()] = append(docs[f.pkg()], f.path)
			name := f.ast.Name.Name
			want := "Package " + name + " "
			if name == "main" {
				want = "Command " + filepath.Base(f.pkg()) + " "
			}
			if !strings.HasPrefix(f.ast.Doc.Text(), want) {
				t.Errorf("%s: the package comment does not begin with %q", f.path, want)
			}
		}
	}
	for pkg, in := range docs {
		if len(in) != 1 {
			t.Errorf("package %s has %d package comments, want one: %v", pkg, len(in), in)
		}
	}
}

func TestEveryExportedNameIsDocumented(t *testing.T) {
	for _, f := range files(t) {
		if f.test() || f.pkg() == "cmd/ashlar" {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s:%d: %s has no comment", f.path, f.line(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				checkSpecs(t, f, d)
			}
		}
	}
}

// exportedReceiver tells whether a function is reachable by its name: it has
// no receiver, or one of an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// checkSpecs wants a comment on each exported name, beside it, above it, or
// above its group.
func checkSpecs(t *testing.T, f *file, d *ast.GenDecl) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
				t.Errorf("%s:%d: type %s has no comment", f.path, f.line(s.Pos()), s.Name.Name)
			}
		case *ast.ValueSpec:
			for _, n := range s.Names {
				if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil && d.Tok != token.IMPORT {
					t.Errorf("%s:%d: %s has no comment", f.path, f.line(n.Pos()), n.Name)
				}
			}
		}
	}
}

// linkRE finds what a document points at within the repository.
var linkRE = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	top := root(t)
	walk(t, func(name string) {
		if !strings.HasSuffix(name, ".md") {
			return
		}
		b, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linkRE.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(top, filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	})
}
