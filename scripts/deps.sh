#!/usr/bin/env bash
# Installs what building, testing and mounting need from the system: fuse3
# (fusermount3), ip and iptables for faults in network namespaces, ping_pong of
# ctdb, and git and make where they are missing. It does nothing, at once, when
# all of it is there.
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
unpack=""
command -v ping_pong >/dev/null || unpack=ctdb
[ ${#need[@]} -eq 0 ] && [ -z "$unpack" ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps: please install: ${need[*]} ${unpack:+ping_pong of ctdb}" >&2
	exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
echo "deps: installing ${need[*]} ${unpack:+ping_pong of ctdb}"
$sudo apt-get update -qq
[ ${#need[@]} -eq 0 ] || $sudo apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
if [ -n "$unpack" ]; then
	# Only the program: the package is a service, with half of Samba.
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	(cd "$tmp" && apt-get download -qq ctdb 2>/dev/null && dpkg-deb -x ctdb_*.deb .)
	$sudo install -m 755 "$tmp/usr/bin/ping_pong" /usr/local/bin/ping_pong
fi
