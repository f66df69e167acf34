// Package tidy holds the house rules of this repository as tests: who may
// import whom, that everything is documented, how long a file may be, what is
// not said. It has no code of its own; `go test ./test/tidy` runs it, and so
// does `make check`.
//
// A rule is here, with its reason, if breaking it would not fail any other
// test. Numbers that good code does not yet reach stand in a ratchet: they
// may only go down.
package tidy
