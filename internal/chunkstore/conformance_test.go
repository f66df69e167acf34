package chunkstore_test

import (
	"path/filepath"
	"testing"

	"github.com/ashlarfs/ashlar/internal/chunkstore/chunkstoretest"
	"github.com/ashlarfs/ashlar/internal/vfs"
)

func TestConformanceOnARealFileSystem(t *testing.T) {
	chunkstoretest.Run(t, func(t *testing.T) chunkstoretest.Place {
		return chunkstoretest.Place{FS: vfs.OS, Dir: filepath.Join(t.TempDir(), "disk")}
	})
}

func TestConformanceInMemory(t *testing.T) {
	chunkstoretest.Run(t, func(*testing.T) chunkstoretest.Place {
		return chunkstoretest.Place{FS: vfs.NewMem(), Dir: "/disk"}
	})
}
