package tidy

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// linesMax is the longest a file may be: a table, or one state machine.
// At half of it, look for the seam.
const linesMax = 1000

func TestNoFileIsLong(t *testing.T) {
	for _, f := range files(t) {
		if n := strings.Count(f.text, "\n"); n > linesMax {
			t.Errorf("%s has %d lines, at most %d", f.path, n, linesMax)
		}
	}
}

// dumps are names of packages that say nothing, and so take in anything.
var dumps = []string{"util", "utils", "common", "base", "misc", "helper", "helpers", "lib", "shared"}

func TestNoPackageIsADump(t *testing.T) {
	for _, f := range files(t) {
		if slices.Contains(dumps, path.Base(f.pkg())) || slices.Contains(dumps, f.ast.Name.Name) {
			t.Errorf("%s: a package is named for what it does, not %q", f.path, path.Base(f.pkg()))
		}
	}
}

// unsaid are words that have no place in the source. Each pattern is broken
// up so that this file does not hold what it looks for.
var unsaid = map[string]string{
	`\bTO` + `DO\b`:                "finish it, or write down what is missing in docs/",
	`\bFIX` + `ME\b`:               "fix it",
	`\bX` + `XX\b`:                 "say what it is",
	`\bHA` + `CK\b`:                "say why it is as it is",
	`(?i)\bhe` + `als?\b`:          "say scrub, repair, sync or balance, whichever it is",
	`/ho` + `me/[a-z]`:             "no paths of one machine",
	`/wo` + `rk/`:                  "no paths of one machine",
	`(?i)\bnot impl` + `emented\b`: "leave out what is not there",
}

func TestNothingUnsaidIsSaid(t *testing.T) {
	for pattern, instead := range unsaid {
		re := regexp.MustCompile(pattern)
		for _, f := range files(t) {
			for i, line := range strings.Split(f.text, "\n") {
				if re.MatchString(line) {
					t.Errorf("%s:%d: %s: %s", f.path, i+1, re.FindString(line), instead)
				}
			}
		}
	}
}

func TestEveryDecoderPackageHasAFuzzTarget(t *testing.T) {
	fuzzed := map[string]bool{}
	for _, f := range files(t) {
		if f.test() && strings.Contains(f.text, "\nfunc Fuzz") {
			fuzzed[f.pkg()] = true
		}
	}
	for _, pkg := range decoders {
		if !fuzzed[pkg] {
			t.Errorf("%s reads bytes from outside and has no fuzz target", pkg)
		}
	}
}

// decoders are the packages that read what others wrote: files and messages.
var decoders = []string{
	"internal/wire", "internal/rpc", "internal/config", "internal/vfs/header", "internal/consensus/wal", "internal/chunkstore",
}

func TestFilesEndInOneNewline(t *testing.T) {
	for _, f := range files(t) {
		if !strings.HasSuffix(f.text, "\n") || strings.HasSuffix(f.text, "\n\n") {
			t.Errorf("%s does not end in one newline", f.path)
		}
	}
}

func TestNoMergeIsHalfDone(t *testing.T) {
	top := root(t)
	walk(t, func(name string) {
		switch filepath.Ext(name) {
		case ".go", ".md", ".sh", ".txt", ".txtar", ".toml", "":
		default:
			return
		}
		b, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(line, "<<<<<<"+"< ") || strings.HasPrefix(line, ">>>>>>"+"> ") {
				t.Errorf("%s:%d: %s", name, n+1, line)
			}
		}
	})
}
