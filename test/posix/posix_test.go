package posix

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryCallIsLikeTheLocalFileSystems runs the families of testdata.
func TestEveryCallIsLikeTheLocalFileSystems(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no families", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			for _, s := range stories(t, file) {
				t.Run(strings.ReplaceAll(s.name, " ", "_"), func(t *testing.T) {
					p := newPair(t)
					p.accessTimes = filepath.Base(file) == "atime.txt"
					for i := range s.lines {
						diff, err := p.step(&s.lines[i])
						if err != nil {
							t.Fatalf("%s:%d: %v", file, s.at[i], err)
						}
						if diff != "" {
							t.Errorf("%s:%d: %s\n%s", file, s.at[i], s.lines[i].text, diff)
						}
					}
				})
			}
		})
	}
}
