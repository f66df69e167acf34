package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ashlarfs/ashlar/internal/inspect"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

// stoppedCluster runs a local cluster, writes files to it and stops it.
func stoppedCluster(t *testing.T, nodes string, files map[string][]byte) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dev")
	ctx, cancel := context.WithTimeout(t.Context(), awaitMax)
	defer cancel()
	up := exec.CommandContext(ctx, "ashlar", "dev", "up", "--dir", dir, "--nodes", nodes)
	out, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ready, buf := []byte(nil), make([]byte, 4096)
	for !bytes.Contains(ready, []byte("\nready")) && !bytes.HasPrefix(ready, []byte("ready")) {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("dev up: %v\n%s", err, ready)
		}
		ready = append(ready, buf[:n]...)
	}
	cluster := filepath.Join(dir, "client.toml")
	src := t.TempDir()
	for name, b := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, errs, code := run(t, "fs", "cp", "-r", "--cluster", cluster, src, "main:/in"); code != 0 {
		t.Error(errs)
	}
	if _, errs, code := run(t, "dev", "down", "--dir", dir); code != 0 {
		t.Error(errs)
	}
	go func() { // it must not block on what nobody reads
		for {
			if _, err := out.Read(buf); err != nil {
				return
			}
		}
	}()
	if err := up.Wait(); err != nil {
		t.Error(err)
	}
	return dir
}

// snapshot returns contents and times of all files.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		sum := uint32(0)
		if d.Type().IsRegular() {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum = crc32.ChecksumIEEE(b)
		}
		out[name] = fi.ModTime().String() + " " + fi.Mode().String() + " " + string(binary.BigEndian.AppendUint32(nil, sum))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bodies are offsets behind the header at which a changed bit must be noticed.
var bodies = map[string][]int64{
	"chunkserver identity": nil,
	"disk identity":        {64, 81, 90, 119, 121},
	"chunk":                {65, 73, 90, 97, 106, 130, 1152, 1152 + 65, 1152 + 75, 1152 + 125, 196608, 196608 + 5000},
	"dirty marks":          {64, 69, 512, 516, 520, 524, 530},
	"group records":        {64, 69, 512, 516, 520, 524, 530},
	"writes in flight":     {4096 + 8, 4096 + 70},
	"master identity":      {64, 75, 90},
	"consensus identity":   {64, 73, 81},
	"log segment":          {65, 73, 81, 512, 520, 530, 545},
}

// Every kind of file that a cluster leaves, whole, with a bit changed, cut
// short, and of a newer format.
func TestInspectFindsEveryKindOfDamage(t *testing.T) {
	dir := stoppedCluster(t, "1", map[string][]byte{"a/file": bytes.Repeat([]byte("ashlar "), 3000)})
	before := snapshot(t, dir)
	seen := map[string]string{}
	w := inspect.Walker{Options: inspect.Options{FS: vfs.ReadOnly}, Each: func(r *inspect.Report) {
		if r.Status != inspect.OK && r.Status != inspect.Foreign {
			t.Errorf("%+v", r)
		}
		if _, ok := bodies[r.Kind]; ok {
			seen[r.Kind] = r.Path
		}
	}}
	if err := w.Walk(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	out, errs, code := run(t, "inspect", "-json", "-v", dir)
	var res inspectResult
	if err := json.Unmarshal([]byte(out), &res); err != nil || code != 0 || res.Totals.Files < len(bodies) || res.Totals.Damaged > 0 {
		t.Errorf("status %d, %v\n%s\n%s", code, err, out, errs)
	}
	for name, was := range snapshot(t, dir) {
		if before[name] != was {
			t.Errorf("%s was changed", name)
		}
	}
	for kind, at := range bodies {
		name := seen[kind]
		if name == "" {
			t.Errorf("the cluster left no %s", kind)
			continue
		}
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, b []byte, want inspect.Status) {
			t.Helper()
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
			r := inspect.Look(w.Options, name)
			if noted := kind == "writes in flight" && len(r.Notes) > 0; r.Status != want && !noted {
				t.Errorf("%s with %s: %s %q, want %s", kind, what, r.Status, r.Problems, want)
			}
		}
		for off := range int64(64) {
			at = append(at, off)
		}
		for _, off := range at {
			b := bytes.Clone(whole)
			b[off] ^= 0x10
			check(fmt.Sprintf("a changed bit at %d", off), b, inspect.Damaged)
		}
		check("its end missing", whole[:min(100, len(whole)-1)], inspect.Damaged)
		check("nothing in it", nil, inspect.Damaged)
		newer := bytes.Clone(whole)
		newer[8] = 99
		binary.LittleEndian.PutUint32(newer[60:], crc32.Checksum(newer[:60], crc32.MakeTable(crc32.Castagnoli)))
		check("a newer version", newer, inspect.Newer)
		if err := os.WriteFile(name, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
