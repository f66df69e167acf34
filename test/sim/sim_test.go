//go:build simruntime

package sim

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "run this seed alone, in this process")
	scheduleFlag = flag.String("schedule", "", "faults from this file, instead of the seed's")
	dirFlag      = flag.String("dir", "", "write what is wrong below this directory")
	logFlag      = flag.String("log", "", "write the logs of all processes to this file")
	eventsFlag   = flag.String("events", "", "write every event to this file")
)

// TestOneSeed is the child's side: one run in a process of its own, which ends
// with the run, because killed processes leave goroutines that never end.
func TestOneSeed(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("run by TestSeeds, once for each seed")
	}
	conf := Shape(*seedFlag)
	schedule := draw(conf, faultsFor)
	var err error
	if *scheduleFlag != "" {
		f, ferr := os.ReadFile(*scheduleFlag)
		if ferr != nil {
			t.Fatal(ferr)
		}
		if schedule, err = ReadSchedule(bytes.NewReader(f)); err != nil {
			t.Fatal(err)
		}
	}
	logs, events := output(t, *logFlag), output(t, *eventsFlag)
	conf.Log, conf.Events = logs, events
	runtime.MemProfileRate = 0
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(16 << 30)
	cryptotest.SetGlobalRandom(t, *seedFlag)
	settleHeap()
	synctest.Test(t, func(*testing.T) {
		seedRuntime(*seedFlag, *seedFlag%2 == 0)
		res, err := Run(conf, schedule, *dirFlag)
		err = errors.Join(err, logs.end(), events.end())
		end(conf, schedule, res, err)
	})
}

func output(t *testing.T, name string) *sink {
	s, err := newSink(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// end prints what a run came to and ends the process.
func end(conf Config, schedule Schedule, res *Result, err error) {
	fmt.Printf("seed %d: hash %016x events %d ops %d answered %d afresh %d virtual %v repaired %v\n",
		conf.Seed, res.Hash, res.Events, res.Ops, res.Answered, res.Afresh, res.Took, res.Repaired)
	if err == nil {
		os.Exit(0)
	}
	conf.Log, conf.Events = nil, nil
	fmt.Printf("seed %d: FAILED\n\t%s\n\t%+v\nschedule:\n", conf.Seed, strings.ReplaceAll(err.Error(), "\n", "\n\t"), conf)
	_ = schedule.Write(os.Stdout)
	os.Exit(1)
}
