package file_test

import (
	"errors"
	"testing"

	"github.com/ashlarfs/ashlar"
	"github.com/ashlarfs/ashlar/internal/file/filetest"
)

// The kernel asks for capabilities before it writes. That a file has none is known
// under its lease: no longer, though the file stays open.
func TestACapabilitySetElsewhereIsSeenByWhoHasTheFileOpen(t *testing.T) {
	const name = "security.capability"
	c := filetest.New()
	a, _ := newFS(c)
	b, _ := newFS(c)
	cred := ashlar.Cred{Checked: true}
	h := create(t, a, "f")
	for range 3 {
		if _, err := a.GetXattr(ctx, cred, h.Inode(), name); !errors.Is(err, ashlar.NoAttr) {
			t.Fatal(err)
		}
	}
	if n := c.Count("GetXattr"); n > 0 {
		t.Errorf("%d questions about a file that was made here", n)
	}
	ok(t, b.SetXattr(ctx, cred, h.Inode(), name, []byte("caps"), 0))
	got, err := a.GetXattr(ctx, cred, h.Inode(), name)
	if err != nil || string(got) != "caps" {
		t.Fatalf("%q, %v", got, err)
	}
	ok(t, a.RemoveXattr(ctx, cred, h.Inode(), name))
	if _, err := a.GetXattr(ctx, cred, h.Inode(), name); !errors.Is(err, ashlar.NoAttr) {
		t.Fatal(err)
	}
	ok(t, h.Close(ctx))
}
