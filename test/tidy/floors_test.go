package tidy

import (
	"strings"
	"testing"
)

// tower is which of the two sides a package is on.
type tower int

const (
	shared tower = iota
	servers
	clients
	top // above both
)

// place is where a package stands: docs/architecture.md, "The floors".
type place struct {
	floor int
	tower tower
}

// places lists every package, or the directory of a family of packages, from
// the root. A package that is not listed fails the test: it needs a floor.
var places = map[string]place{
	".":                    {0, shared},
	"internal/wire":        {1, shared},
	"internal/rpc":         {1, shared},
	"internal/masterconn":  {1, shared},
	"internal/vfs":         {1, shared},
	"internal/clock":       {1, shared},
	"internal/checksum":    {1, shared},
	"internal/config":      {1, shared},
	"internal/meta":        {2, servers},
	"internal/replication": {2, servers},
	"internal/consensus":   {3, servers},
	"internal/kv":          {3, servers},
	"internal/chunkstore":  {3, servers},
	"internal/master":      {4, servers},
	"internal/chunkserver": {4, servers},
	"internal/inspect":     {4, servers},
	"internal/object":      {2, clients},
	"internal/file":        {3, clients},
	"client":               {4, clients},
	"internal/fusefs":      {5, clients},
	"internal/faults":      {6, top},
	"internal/devcluster":  {6, top},
	"cmd/ashlar":           {7, top},
	"test":                 {8, top},
}

// sideways are the imports that are allowed within a floor, each with its
// reason.
var sideways = map[string]string{
	"internal/rpc -> internal/wire":             "rpc carries messages",
	"internal/rpc -> internal/clock":            "deadlines and backoff run on the clock seam",
	"internal/masterconn -> internal/wire":      "masterconn speaks the session conversation",
	"internal/masterconn -> internal/rpc":       "masterconn is how a caller follows the leader",
	"internal/masterconn -> internal/clock":     "leases run on the clock seam",
	"internal/wire -> internal/checksum":        "the size of a checksum is part of messages",
	"internal/config -> internal/vfs":           "configuration names disks",
	"internal/meta -> internal/meta/session":    "the entry point joins its parts",
	"internal/meta -> internal/meta/namespace":  "the entry point joins its parts",
	"internal/meta -> internal/meta/lock":       "the entry point joins its parts",
	"internal/meta -> internal/meta/placement":  "the entry point joins its parts",
	"internal/meta -> internal/meta/key":        "the key layout is one for all parts",
	"internal/inspect -> internal/master":       "a file is read by the decoder of the package that owns its format",
	"internal/inspect -> internal/chunkserver":  "a file is read by the decoder of the package that owns its format",
	"internal/consensus -> internal/consensus/": "a package and its own parts",
}

// pureMayImport is what floor 2 of the servers may import of this module:
// decision 0001.
var pureMayImport = map[string]bool{
	".": true, "internal/wire": true, "internal/invariant": true, "internal/meta/key": true,
}

// family returns the entry of places that a package belongs to.
func family(pkg string) (string, bool) {
	for p := pkg; ; {
		if _, ok := places[p]; ok && (p != "." || pkg == ".") {
			return p, true
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return "", false
		}
		p = p[:i]
	}
}

// support tells whether a package exists for tests (kvtest, errfs): it may
// import what it supports.
func support(pkg string) bool {
	return strings.HasSuffix(pkg, "test") || strings.HasSuffix(pkg, "/errfs")
}

func TestImportsGoDownWithinATower(t *testing.T) {
	for _, f := range files(t) {
		if f.test() || support(f.pkg()) {
			continue
		}
		from, ok := family(f.pkg())
		if !ok {
			t.Errorf("%s: package %s has no floor; give it one here, in docs/architecture.md and in .golangci.yml", f.path, f.pkg())
			continue
		}
		for _, imp := range f.imports(t) {
			to, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if to = strings.TrimPrefix(to, "/"); to == "" {
				to = "."
			}
			// internal/faults injects into real processes, where only the
			// environment of a test turns it on.
			if support(to) && !strings.HasPrefix(f.pkg(), "test/") && f.pkg() != "internal/faults" {
				t.Errorf("%s imports %s, which is for tests", f.path, to)
			}
			if why := refuse(f.pkg(), from, to); why != "" {
				t.Errorf("%s imports %s: %s", f.path, to, why)
			}
		}
	}
}

// refuse says why an import is not allowed, "" if it is.
func refuse(pkg, from, to string) string {
	target, ok := family(to)
	if !ok {
		return "it has no floor"
	}
	a, b := places[from], places[target]
	switch {
	case a.tower == servers && a.floor == 2:
		if from == target && sideways[pkg+" -> "+to] != "" || pureMayImport[to] {
			return ""
		}
		return "floor 2 of the servers is pure: it imports the vocabulary and messages, and parts of meta import only meta/key"
	case from == target:
		return ""
	case sideways[pkg+" -> "+to] != "":
		return ""
	case b.floor >= a.floor:
		return "imports go down: a package knows only the floors below it"
	case b.tower == top && a.tower != top:
		return "nothing imports the top but the command"
	case a.tower != top && b.tower != shared && a.tower != b.tower:
		return "servers and clients share only floors 0 and 1"
	}
	return ""
}

// engines are the libraries that only one or two packages may name, so that
// another can take their place.
var engines = map[string][]string{
	"go.etcd.io/raft":                   {"internal/consensus"},
	"github.com/cockroachdb/pebble":     {"internal/kv", "internal/consensus"},
	"github.com/hanwen/go-fuse":         {"internal/fusefs"},
	"github.com/spf13/cobra":            {"cmd/ashlar"},
	"github.com/jedib0t/go-pretty":      {"cmd/ashlar"},
	"github.com/pelletier/go-toml":      {"internal/config"},
	"github.com/anishathalye/porcupine": {"test"},
}

func TestLibrariesAreNamedInOnePlace(t *testing.T) {
	for _, f := range files(t) {
		if f.test() {
			continue
		}
		for _, imp := range f.imports(t) {
			for lib, allowed := range engines {
				if imp != lib && !strings.HasPrefix(imp, lib+"/") {
					continue
				}
				ok := false
				for _, p := range allowed {
					ok = ok || f.pkg() == p || strings.HasPrefix(f.pkg(), p+"/")
				}
				if !ok {
					t.Errorf("%s imports %s: only %s may, so that it can be replaced there", f.path, imp, strings.Join(allowed, " and "))
				}
			}
		}
	}
}

func TestTheVocabularyNeedsOnlyTheStandardLibrary(t *testing.T) {
	for _, f := range files(t) {
		if f.pkg() != "." || f.test() {
			continue
		}
		for _, imp := range f.imports(t) {
			if strings.Contains(imp, ".") {
				t.Errorf("%s imports %s", f.path, imp)
			}
		}
	}
}
