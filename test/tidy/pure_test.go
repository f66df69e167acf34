package tidy

import (
	"go/ast"
	"strings"
	"testing"
)

// impure are the packages that bring time, chance, disks, the network or
// goroutines with them. Floor 2 of the servers must do the same again when it
// is given the same again.
var impure = []string{"net", "os", "io/fs", "sync", "sync/atomic", "context", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog", "runtime"}

// clocks are the functions of package time that read or wait for the clock.
var clocks = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"NewTimer": true, "NewTicker": true, "Tick": true,
}

func TestFloorTwoOfTheServersIsPure(t *testing.T) {
	for _, f := range files(t) {
		fam, _ := family(f.pkg())
		if p := places[fam]; f.test() || support(f.pkg()) || p.floor != 2 || p.tower != servers {
			continue
		}
		for _, imp := range f.imports(t) {
			for _, bad := range impure {
				if imp == bad {
					t.Errorf("%s imports %s: what it gives comes in as an argument", f.path, imp)
				}
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s:%d: a goroutine", f.path, f.line(n.Pos()))
			case *ast.SelectStmt:
				t.Errorf("%s:%d: a select, whose choice is random", f.path, f.line(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && clocks[n.Sel.Name] {
					t.Errorf("%s:%d: time.%s; time comes in as an argument", f.path, f.line(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestNobodySleeps(t *testing.T) {
	for _, f := range files(t) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && !sleepAllowed(f) {
					t.Errorf("%s:%d: time.Sleep; poll a condition with a deadline", f.path, f.line(n.Pos()))
				}
			}
			return true
		})
	}
}

// sleepAllowed is for tests under testing/synctest and for what test/sim runs
// in a bubble, where sleeping moves simulated time and waits for nobody.
func sleepAllowed(f *file) bool {
	return f.pkg() == "test/sim" || f.test() && strings.Contains(f.text, `"testing/synctest"`)
}
