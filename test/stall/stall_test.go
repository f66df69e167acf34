package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// measured runs cases of the command built here. Their bars are for a machine
// of one's own; a shared one gets ten times that.
func measured(t *testing.T, cases, runs string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces and a mount")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs ", tool)
		}
	}
	dir := t.TempDir()
	for name, pkg := range map[string]string{"ashlar": "../../cmd/ashlar", "stall": "."} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	kept, err := os.MkdirTemp("", "ashlar-stall-test-")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "stall"), "-bin", filepath.Join(dir, "ashlar"), "-dir", kept,
		"-runs", runs, "-slack", "10", "-cases", cases).CombinedOutput()
	t.Logf("in %v:\n%s", time.Since(began), out)
	if err != nil {
		t.Fatalf("%v; everything is kept in %s", err, kept)
	}
	if err := os.RemoveAll(kept); err != nil {
		t.Error(err)
	}
}

func TestApplicationsHardlyNoticeAKilledNode(t *testing.T) {
	measured(t, "kill-chunkserver,kill-leader", "1")
}

// Every packet of a live node is refused in its name, by RST and then by ICMP:
// nobody takes its process for dead, and no application sees an error. I-6
func TestResetsAndICMPErrorsProveNothing(t *testing.T) { measured(t, "reject-chunkserver", "2") }
