package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is a drill of docs/operations whose commands are run as they stand
// there, but for the names of places.
type page struct {
	t      *testing.T
	name   string
	blocks []string
	places *strings.Replacer
	env    []string
	dir    string // where they are run
	said   string // on standard error, by the last commands
}

var shellBlock = regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```")

// openPage reads a drill. bin has commands that stand for the system's; places
// are pairs of what the page says and what it is here.
func openPage(t *testing.T, name, bin string, places ...string) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs/operations", name))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{t: t, name: name, places: strings.NewReplacer(places...), dir: t.TempDir()}
	for _, m := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		p.blocks = append(p.blocks, m[1])
	}
	p.env = append(os.Environ(), "PATH="+bin+":"+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	return p
}

// run runs the next commands of the page, which must begin with a text, and
// must end with a status. It returns what they printed.
func (p *page) run(begins string, want int) string {
	p.t.Helper()
	if len(p.blocks) == 0 || !strings.HasPrefix(strings.TrimSpace(p.blocks[0]), begins) {
		p.t.Fatalf("%s: the next commands are %q, not %q", p.name, p.blocks, begins)
	}
	cmd := exec.CommandContext(p.t.Context(), "sh", "-e", "-c", p.places.Replace(p.blocks[0]))
	p.blocks = p.blocks[1:]
	cmd.Env, cmd.Dir = p.env, p.dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	p.said = errs.String()
	code := 0
	var e *exec.ExitError
	if errors.As(err, &e) {
		code = e.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	if code != want {
		p.t.Fatalf("%s: %s: status %d, want %d\n%s\n%s", p.name, begins, code, want, out, p.said)
	}
	return string(out)
}

// over fails if commands of the page were not run.
func (p *page) over() {
	p.t.Helper()
	if len(p.blocks) > 0 {
		p.t.Errorf("%s: not run: %q", p.name, p.blocks)
	}
}
