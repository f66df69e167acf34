//go:build simruntime

package sim

import _ "unsafe" // for go:linkname

// deterministic tells that the runtime is the one that test/sim/runtime makes.
const deterministic = true

// seedRuntime begins the stream that decides order; shuffle lets runnable
// goroutines overtake each other.
//
//go:linkname seedRuntime runtime.simSeed
func seedRuntime(seed uint64, shuffle bool)

// setNode says whose goroutine the caller is and returns whose it was.
//
//go:linkname setNode runtime.simSetNode
func setNode(node uint32) uint32

// hold keeps the goroutines of a node from running, or lets them go on.
//
//go:linkname hold runtime.simHold
func hold(node uint32, on bool)

// goroutines returns how many goroutines a node has.
//
//go:linkname goroutines runtime.simGoroutines
func goroutines(node uint32) int32
