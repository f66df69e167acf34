// Package posix compares an Ashlar mount with a local file system, call by
// call: the same system calls, as root and as others, are made in a directory
// of each, and after every one the errno, what it returned, and all that
// stat(2) tells of every file must be the same.
//
// What one mount does, and two, is also compared with models: bytes at random,
// listings while names come and go, the largest file.
//
// The families in testdata are tables of cases that read like the manual
// pages.
//
//	go test ./test/posix                            a cluster of its own
//	ASHLAR_POSIX_DIR=/mnt/main go test ./test/posix a mount that is there
//	ASHLAR_POSIX_DIR2=/mnt/again …                  the same volume, mounted once more
//	ASHLAR_POSIX_REF=/srv/ext4 …                    what to compare with
package posix
