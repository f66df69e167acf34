package main

// change is one text of a file of package runtime and what stands in its
// place.
type change struct {
	file  string
	times int
	old   string
	new   string
}

var changes = []change{
	// Whoever waits for a mutex is blocked: its holder may be waiting for time.
	{"runtime2.go", 1, "	waitReasonSyncCondWait:          true,\n",
		"	waitReasonSyncCondWait:          true,\n	waitReasonSyncMutexLock:         true,\n" +
			"	waitReasonSyncRWMutexRLock:      true,\n	waitReasonSyncRWMutexLock:       true,\n"},
	{"runtime2.go", 1, "	bubble  *synctestBubble\n", "	bubble  *synctestBubble\n	simNode uint32 // whose goroutine this is\n"},

	// One seeded stream.
	{"rand.go", 1, "	seed := &globalRand.seed\n", "	startupRand = nil\n	seed := &globalRand.seed\n"},
	{"rand.go", 1, "		if readRandom(seed[:]) != len(seed) || allZero(seed[:]) {\n", "		seed[0] = 1\n		if false {\n"},
	{"rand.go", 1, "	mp := getg().m\n	c := &mp.chacha8\n", "	if getg() != nil {\n		return simRand()\n	}\n	mp := getg().m\n	c := &mp.chacha8\n"},
	{"rand.go", 1, "	mp.cheaprand = rand()\n", "	mp.cheaprand = 1\n"},
	{"rand.go", 1, "// rand32 is uint32(rand())", simSource + "\n// rand32 is uint32(rand())"},
	{"select.go", 1, "cheaprandn(uint32(norder + 1))", "simRandn(uint32(norder + 1))"},
	{"sema.go", 1, "	s.ticket = cheaprand() | 1\n", "	s.ticket = simRandn(1<<32-1) | 1\n"},
	{"iface.go", 4, "cheaprand()", "simRandn(1<<32 - 1)"},
	{"time.go", 1, "			t.rand = cheaprand()\n", "			t.rand = simRandn(1<<32 - 1)\n			t.simNode = getg().simNode\n"},

	// A mutex hands itself over to who waits long; long is simulated time.
	{"sema.go", 1, "func internal_sync_nanotime() int64 {\n",
		"func internal_sync_nanotime() int64 {\n	if b := getg().bubble; b != nil {\n		return b.now\n	}\n"},

	// A timer acts for the node of who set it.
	{"time.go", 1, "	isFake bool         // timer is using fake time; immutable; can be read without lock\n",
		"	isFake bool         // timer is using fake time; immutable; can be read without lock\n	simNode uint32\n"},
	{"time.go", 1, "		gp.bubble = bubble\n", "		gp.bubble = bubble\n		gp.simNode = t.simNode\n"},
	{"time.go", 1, "		gp.bubble = nil\n	}\n\n	if ts != nil {\n		ts.lock()\n", "		gp.bubble = nil\n		gp.simNode = 0\n	}\n\n	if ts != nil {\n		ts.lock()\n"},
	{"proc.go", 1, "		newg.bubble = callergp.bubble\n", "		newg.bubble = callergp.bubble\n		newg.simNode = callergp.simNode\n		simCount[newg.simNode]++\n"},
	{"proc.go", 1, "	gp.bubble = nil\n	gp.fipsOnlyBypass = false\n", "	if gp.bubble != nil {\n		simCount[gp.simNode]--\n	}\n	gp.bubble = nil\n	gp.fipsOnlyBypass = false\n"},

	// Until a bubble begins it is always the same moment: some packages, the
	// storage engine's among them, count time from when the process began.
	{"time.go", 1, "func time_runtimeNow() (sec int64, nsec int32, mono int64) {\n",
		"func time_runtimeNow() (sec int64, nsec int32, mono int64) {\n	if !simBegun && getg().bubble == nil {\n		return 946684800, 0, 1\n	}\n"},

	// How many threads there are depends on the kernel. What they need is not
	// taken from the heap, so that addresses in it do not: maps with pointers
	// for keys are walked in an order that follows from them.
	{"proc.go", 1, "	mp := &new(mPadded).m\n", "	mp := (*m)(add(persistentalloc(4096, 2048, &memstats.other_sys), mallocHeaderSize)) // where locks expect it\n"},
	{"proc.go", 1, "	newg := new(g)\n	if stacksize >= 0 {\n		stacksize = round2(stackSystem + stacksize)\n",
		"	if stacksize >= 16384 {\n		return simMalg(uintptr(stacksize))\n	}\n	newg := new(g)\n	if stacksize >= 0 {\n		stacksize = round2(stackSystem + stacksize)\n"},
	{"runtime2.go", 1, "	w := mWeakPointer{m: new(atomic.Pointer[m])}\n",
		"	w := mWeakPointer{m: (*atomic.Pointer[m])(persistentalloc(8, 8, &memstats.other_sys))}\n"},

	// Scheduling: no preemption, no turns by count, a seeded order, nodes that
	// are held.
	{"proc.go", 1, "func retake(now int64) uint32 {\n", "func retake(now int64) uint32 {\n	if now != 0 {\n		return 0\n	}\n"},
	{"proc.go", 1, "	if pp.schedtick%61 == 0 && !sched.runq.empty() {\n", "	if false {\n"},
	{"proc.go", 1, "	if randomizeScheduler && next && randn(2) == 0 {\n",
		"	if next && simShuffle && gp.bubble != nil && simRandn(4) == 0 {\n"},
	{"proc.go", 1, "	if gp.lockedm != 0 {\n		// Hands off own p to the locked m,\n",
		"	if gp.simNode != 0 && gp.bubble != nil && simHolds(gp) {\n		goto top\n	}\n	if gp.lockedm != 0 {\n		// Hands off own p to the locked m,\n"},
}

// simSource is added to the runtime.
const simSource = `// simNodes is how many nodes may be named.
const simNodes = 1 << 14

var (
	simState   uint64
	simShuffle bool
	simBegun   bool
	simHeld    [simNodes]bool
	simQueue   [simNodes]gQueue
	simCount   [simNodes]int32 // goroutines that there are
)

// simSeed begins the stream of a seed.
//
//go:linkname simSeed
func simSeed(seed uint64, shuffle bool) {
	simBegun = true
	simState = seed
	simShuffle = shuffle
}

//go:nosplit
func simRand() uint64 {
	simState += 0x9e3779b97f4a7c15
	z := simState
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

// simRandn returns a number below n, of the stream in a bubble.
//
//go:nosplit
func simRandn(n uint32) uint32 {
	gp := getg()
	if gp.bubble == nil && (gp.m.curg == nil || gp.m.curg.bubble == nil) {
		return cheaprandn(n)
	}
	return uint32((simRand() >> 32) * uint64(n) >> 32)
}

// simMalg is malg for threads, from memory of its own.
func simMalg(size uintptr) *g {
	newg := (*g)(persistentalloc(unsafe.Sizeof(g{}), 64, &memstats.other_sys))
	p := uintptr(persistentalloc(2*size, 4096, &memstats.other_sys))
	newg.stack = stack{p, p + 2*size}
	newg.stackguard0 = newg.stack.lo + stackGuard
	newg.stackguard1 = ^uintptr(0)
	return newg
}

// simSetNode says whose goroutine the caller is; those that it starts follow.
//
//go:linkname simSetNode
func simSetNode(node uint32) uint32 {
	gp := getg()
	old := gp.simNode
	gp.simNode = node
	simCount[old]--
	simCount[node]++
	return old
}

// simGoroutines returns how many goroutines a node has.
//
//go:linkname simGoroutines
func simGoroutines(node uint32) int32 { return simCount[node] }

// simHolds takes a goroutine of a held node out of circulation. It does not
// count as running until simHold lets it go.
func simHolds(gp *g) bool {
	if gp.simNode >= simNodes || !simHeld[gp.simNode] {
		return false
	}
	b := gp.bubble
	simQueue[gp.simNode].pushBack(gp)
	lock(&b.mu)
	b.running--
	wake := b.maybeWakeLocked()
	unlock(&b.mu)
	if wake != nil {
		goready(wake, 0)
	}
	return true
}

// simHold holds the goroutines of a node, or lets them go on.
//
//go:linkname simHold
func simHold(node uint32, hold bool) {
	simHeld[node] = hold
	if hold {
		return
	}
	b := getg().bubble
	systemstack(func() {
		for !simQueue[node].empty() {
			gp := simQueue[node].pop()
			lock(&b.mu)
			b.running++
			unlock(&b.mu)
			mp := acquirem()
			runqput(mp.p.ptr(), gp, false)
			releasem(mp)
		}
	})
}
`
