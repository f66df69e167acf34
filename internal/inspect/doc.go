// Package inspect reads what Ashlar keeps on disks while nobody runs it:
// every kind of file, verified, and the files of a cluster put together from
// chunkservers' disks alone when all masters are gone. It knows no format: it
// asks the package that owns it. It takes no lock and writes nothing but what
// Extract is told to.
//
// What it reads may be cut short, foreign, newer than this release or full of
// flipped bits: it says which and goes on with the next.
//
//	report.go   what is said of a file
//	file.go     one file, known by its magic
//	tree.go     whole directories: disks, masters, nodes
//	scan.go     rebuild: which chunks are where, and which copies count
//	names.go    rebuild: which files the chunks are of
//	extract.go  rebuild: their contents, under their names
//	target.go   rebuild: where to
//
// Nothing here but Extract is called by two goroutines at once, and nothing
// survives a crash: it is run again.
package inspect
