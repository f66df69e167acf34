#!/usr/bin/env bash
# Installs what building, testing and mounting need from the system: fuse3
# (fusermount3), ip and iptables for faults in network namespaces, and git and
# make where they are missing. It does nothing, at once, when all of it is there.
#
#   scripts/deps.sh          what make test needs
#   scripts/deps.sh peers    also what make bench compares with (MooseFS 3 and
#                            GlusterFS); on a machine with systemd, stop and
#                            mask their services afterwards: the benchmark runs
#                            its own
set -euo pipefail

need=()
case ${1:-} in
"") ;;
peers)
	command -v mfsmaster >/dev/null || need+=(moosefs-master moosefs-cli)
	command -v mfschunkserver >/dev/null || need+=(moosefs-chunkserver)
	command -v mfsmount >/dev/null || need+=(moosefs-client)
	command -v glusterd >/dev/null || need+=(glusterfs-server)
	command -v glusterfs >/dev/null || need+=(glusterfs-client)
	;;
*)
	echo "deps: no set of packages $1; there is peers" >&2
	exit 2
	;;
esac
command -v fusermount3 >/dev/null || need+=(fuse3)
command -v ip >/dev/null || need+=(iproute2)
command -v iptables >/dev/null || need+=(iptables)
command -v git >/dev/null || need+=(git)
command -v make >/dev/null || need+=(make)
[ ${#need[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps: please install: ${need[*]}" >&2
	exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
echo "deps: installing ${need[*]}"
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
