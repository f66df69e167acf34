//go:build !simruntime

package sim

// deterministic tells that the runtime is the one that test/sim/runtime makes.
const deterministic = false

// On any other runtime nothing can be held, and no run repeats.

func seedRuntime(uint64, bool) {}
func setNode(uint32) uint32    { return 0 }
func hold(uint32, bool)        { panic("sim: built without the overlay of test/sim/runtime") }
func goroutines(uint32) int32  { return 0 }
