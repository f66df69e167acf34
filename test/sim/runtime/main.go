// Command runtime writes a build overlay that makes the Go runtime of a
// simulation deterministic, and prints the name of its overlay file:
//
//	go test -c -tags simruntime -overlay "$(go run ./test/sim/runtime -o DIR)" ./test/sim
//
// Inside a bubble of testing/synctest, with GOMAXPROCS=1 and the collector
// off, a program built with it runs the same way every time it is given the
// same seed. What is changed, all of it in copies under DIR:
//
//   - the order of select, of maps, of timers at one instant and of runnable
//     goroutines, and everything from math/rand, follow one seeded stream;
//   - no goroutine is preempted, and no thread is taken for being slow;
//   - whoever waits for a mutex counts as blocked, so that time goes on while
//     the holder waits for a simulated disk;
//   - a goroutine knows the node it was started for (its parent's; a timer's
//     is that of whoever set it), and the goroutines of a node can be held:
//     as SIGSTOP does for a while, as kill -9 does for ever.
//
// It refuses a Go release whose runtime does not have the places that it
// changes.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	out := flag.String("o", "", "directory for the changed copies and overlay.json")
	flag.Parse()
	name, err := write(*out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtime:", err)
		os.Exit(1)
	}
	fmt.Println(name)
}

func write(out string) (string, error) {
	if out == "" {
		return "", fmt.Errorf("-o names the directory to write to")
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", "runtime")
	for _, name := range []string{"runtime2.go", "rand.go", "proc.go", "time.go", "select.go", "sema.go", "iface.go"} {
		text, err := changed(dir, name)
		if err != nil {
			return "", err
		}
		to := filepath.Join(out, name)
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(dir, name)] = to
	}
	b, err := json.MarshalIndent(overlay, "", "\t")
	if err != nil {
		return "", err
	}
	name := filepath.Join(out, "overlay.json")
	return name, os.WriteFile(name, b, 0o644)
}

// changed returns a file of the runtime with its changes made.
func changed(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	text := string(b)
	for _, c := range changes {
		if c.file != name {
			continue
		}
		if n := strings.Count(text, c.old); n != c.times {
			return "", fmt.Errorf("this release of Go has %d places like %q in runtime/%s, want %d: adapt test/sim/runtime, or build with the release of go.mod",
				n, c.old, name, c.times)
		}
		text = strings.ReplaceAll(text, c.old, c.new)
	}
	return text, nil
}
