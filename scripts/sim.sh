#!/usr/bin/env bash
# Builds the simulation on its deterministic runtime and runs it.
#
#   scripts/sim.sh                     seeds for a minute
#   scripts/sim.sh -from 1 -runs 1000  a thousand seeds
#   scripts/sim.sh -for 5m             for five minutes
#   scripts/sim.sh -same               20 seeds twice: every run repeats
#   scripts/sim.sh -seed 7 [-log F] [-events F] [-schedule F]
#                                      one run, with its logs, events, faults
set -euo pipefail
cd "$(dirname "$0")/.."

out=bin/sim # copies of the runtime are in a folder that go ./... leaves out
mkdir -p "$out"
overlay=$(go run ./test/sim/runtime -o "$out/_runtime")
go vet -tags simruntime ./test/sim
go test -c -tags simruntime -overlay "$overlay" -o "$out/sim.test" ./test/sim

case " $* " in
*" -seed "*) GOMAXPROCS=1 GODEBUG=profstackdepth=0 exec "$out/sim.test" -test.run '^TestOneSeed$' "$@" ;;
*" -same "*) exec "$out/sim.test" -test.v -test.timeout 0 -test.run '^TestTheSameSeedIsTheSameRun$' ;;
*) exec "$out/sim.test" -test.v -test.timeout 0 -test.run '^TestSeeds$' "$@" ;;
esac
