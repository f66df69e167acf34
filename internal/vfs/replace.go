package vfs

import "path"

// Replace durably makes name hold b, at once and whole: after a crash it holds
// b or what it held before. It returns the file open, with room up to prealloc
// bytes zeroed ahead. NAME.tmp beside it is used meanwhile, and may be left over.
func Replace(fsys FS, name string, b []byte, prealloc int64) (File, error) {
	tmp := name + ".tmp"
	f, err := fsys.Create(tmp)
	if err != nil {
		return nil, err
	}
	if prealloc > int64(len(b)) {
		err = f.Preallocate(prealloc)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err == nil {
		err = fsys.SyncDir(path.Dir(name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReplaceFile is Replace for who needs the file no more.
func ReplaceFile(fsys FS, name string, b []byte) error {
	f, err := Replace(fsys, name, b, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
