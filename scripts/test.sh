#!/usr/bin/env bash
# Runs the tests in stages, each within a budget of time. Budgets are for two
# idle cores; a stage that takes twice as long fails, with the stacks of what
# was running, and one that takes longer than its budget says so.
#
#   scripts/test.sh                 every stage
#   scripts/test.sh unit sim        some of them
#
# unit    every package but the ones below
# sim     whole clusters simulated under faults: 20 seeds twice, then others
# script  the stories: command lines against a cluster of real processes
# e2e     files end to end: a mounted volume while nodes are killed
# coherence  what mounts see of each other: data, names, locks, and ctdb's ping_pong
# posix   every call compared with the local file system
# faults  real processes in network namespaces suffer; histories are checked
set -uo pipefail
cd "$(dirname "$0")/.."

module=github.com/ashlarfs/ashlar
failed=()

# stage NAME BUDGET_SECONDS PACKAGES... runs go test and prints its own lines.
stage() {
	local name=$1 budget=$2
	shift 2
	local limit=$((2 * budget)) began=$SECONDS
	echo "=== stage $name, ${budget}s, at most ${limit}s"
	if ! timeout --foreground -k 15 $((limit + 15)) \
		go test -count=1 -timeout "${limit}s" "$@"; then
		failed+=("$name")
	fi
	local took=$((SECONDS - began))
	echo "=== stage $name took ${took}s"
	[ "$took" -le "$budget" ] || echo "=== stage $name is over its budget of ${budget}s"
}

# simulate BUDGET_SECONDS FLAGS... runs the simulation: that runs repeat, and
# that seeds pass.
simulate() {
	local budget=$1 began=$SECONDS
	shift
	echo "=== stage sim, ${budget}s, at most $((2 * budget))s"
	timeout --foreground -k 15 $((2 * budget)) sh -c 'scripts/sim.sh -same && scripts/sim.sh "$@"' sim "$@" || failed+=(sim)
	local took=$((SECONDS - began))
	echo "=== stage sim took ${took}s"
	[ "$took" -le "$budget" ] || echo "=== stage sim is over its budget of ${budget}s"
}

run() {
	case $1 in
	unit)
		# One package at a time: several of them elect leaders in real time.
		stage unit 240 -p 1 $(go list ./... | grep -v -e "^$module/test/e2e\$" -e "^$module/test/stall\$" -e "^$module/test/chaos\$" -e "^$module/test/posix\$" -e "^$module/cmd/ashlar\$")
		;;
	sim)
		# The same seeds every time, as many as fit into five minutes of two
		# processors, those that run twice included; make sim tries others.
		simulate 180 -from 1 -for 140s
		;;
	script)
		stage script 180 ./cmd/ashlar
		;;
	e2e)
		ASHLAR_E2E=required stage e2e 330 -p 1 -v -skip '^Test(Locks|Coherence)' ./test/e2e ./test/stall
		;;
	coherence)
		ASHLAR_E2E=required stage coherence 120 -v -run '^Test(Locks|Coherence)' ./test/e2e
		;;
	posix)
		ASHLAR_E2E=required stage posix 60 ./test/posix
		;;
	faults)
		stage faults 120 -v ./test/chaos
		;;
	*)
		echo "test.sh: no stage $1; there are unit, sim, script, e2e, coherence, posix and faults" >&2
		exit 2
		;;
	esac
}

[ $# -gt 0 ] || set -- unit sim script e2e coherence posix faults

echo "=== building"
go build ./... && go vet ./... || exit 1
for s in "$@"; do
	run "$s"
done
if [ ${#failed[@]} -gt 0 ]; then
	echo "FAILED: ${failed[*]}"
	exit 1
fi
echo "all stages passed"
