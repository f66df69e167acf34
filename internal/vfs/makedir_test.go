package vfs

import "testing"

func TestADirectoryMadeSurvivesPowerLoss(t *testing.T) {
	m := NewMem()
	if err := m.MkdirAll("/a"); err != nil { // made, and never synced, by who was killed
		t.Fatal(err)
	}
	if err := MakeDir(m, "/a"); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(m, "/a/b/c"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CrashClone(nil).Stat("/a/b/c"); err != nil {
		t.Error(err)
	}
}

func TestMakeDirOfAFileFails(t *testing.T) {
	m := NewMem()
	f, err := m.Create("/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(m, "/f/d"); err == nil {
		t.Error("made a directory in a file")
	}
}
