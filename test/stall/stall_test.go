package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The bars are for a machine of one's own; a shared one gets ten times that.
func TestApplicationsHardlyNoticeAKilledNode(t *testing.T) {
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
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), pkg).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	kept, err := os.MkdirTemp("", "ashlar-stall-test-")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "stall"), "-bin", filepath.Join(dir, "ashlar"), "-dir", kept,
		"-runs", "1", "-slack", "10", "-cases", "kill-chunkserver,kill-leader").CombinedOutput()
	t.Logf("in %v:\n%s", time.Since(began), out)
	if err != nil {
		t.Fatalf("%v; everything is kept in %s", err, kept)
	}
	if err := os.RemoveAll(kept); err != nil {
		t.Error(err)
	}
}
