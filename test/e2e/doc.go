// Package e2e tests files end to end: real processes started by `ashlar dev
// up`, a volume in the kernel, a source tree of ten thousand files copied in
// while nodes are killed with -9, and every byte and attribute compared
// afterwards. It has no code of its own.
//
// It needs root and /dev/fuse and is skipped without them, unless ASHLAR_E2E
// is "required", as `make test` sets it: then their absence is a failure.
package e2e
