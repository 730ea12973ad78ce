#!/usr/bin/env bash
# uml.sh runs a program in a user-mode Linux kernel: for tests of what this machine's own kernel
# lacks. It boots in about a second.
#
#   scripts/uml.sh [--modules "ipvlan dummy ..."] [--env K=V]... [--dir DIR] [--timeout SECONDS] \
#     [--mem SIZE] -- /abs/program args...
#
# The program runs as root on this machine's own file system, as it is, below a tmpfs: it reads
# everything and changes nothing, whatever it writes is gone afterwards. /run is empty. Nothing of
# this environment reaches it but PATH, HOME and what --env names; BRAID_UML=1 is set. What it
# prints comes out on standard output, and its exit code is returned. 125 means that the kernel did
# not boot, died, or did not end in time; its last words are then on standard error.
#
# Modules that are asked for by using them (as nft's) are loaded on demand; --modules replaces the
# list of those loaded at boot.
set -euo pipefail

modules='ipv6 veth bridge 8021q macvlan ipvlan dummy vrf bonding vxlan ifb tun'
modules+=' nf_tables nf_conntrack'
limit=600
mem=2G
dir=$PWD
environment=()

say() { printf 'uml: %s\n' "$*" >&2; }

usage() {
	say "usage: ${0##*/} [--modules LIST] [--env K=V]... [--dir DIR] [--timeout SECONDS]" \
		"[--mem SIZE] -- /abs/program args..."
	exit 2
}

while [ $# -gt 0 ]; do
	case $1 in
	--modules) modules=${2?} && shift 2 ;;
	--env) environment+=("${2?}") && shift 2 ;;
	--dir) dir=${2?} && shift 2 ;;
	--timeout) limit=${2?} && shift 2 ;;
	--mem) mem=${2?} && shift 2 ;;
	--) shift && break ;;
	*) usage ;;
	esac
done
case ${1-} in
/*) ;;
*) usage ;;
esac

"$(dirname "${BASH_SOURCE[0]}")/install-deps.sh" uml
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
version=$(linux.uml --version)

# Not below /dev, which is another one in the kernel that boots.
work=$(mktemp -d "${TMPDIR:-/tmp}/braid-uml.XXXXXX")
# A kernel that was killed before it could clean up leaves its processes, in a group of their own.
# shellcheck disable=SC2317 # called by the trap
clean_up() {
	if [ -s "$work/machine/pid" ]; then
		kill -KILL -- "-$(cat "$work/machine/pid")" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
gcc -shared -fPIC -O2 -o "$work/regset.so" "$(dirname "${BASH_SOURCE[0]}")/uml/regset.c" -ldl

# The kernel's first process. It makes the root that the program sees, runs the program there on a
# terminal of its own, so that nothing of the kernel's gets into its output, keeps its exit code,
# and switches the machine off.
cat >"$work/init" <<INIT
#!/bin/bash
exec 2>&1
export PATH=$PATH
fail() { echo "init: \$*"; echo o >/proc/sysrq-trigger; sleep 60; }
mount -t proc proc /proc || fail proc
mount -t tmpfs tmpfs /tmp || fail tmpfs
# The modules' directory of the file system below is not writable; modprobe takes another root.
mkdir -p /tmp/m/lib /tmp/upper /tmp/work /tmp/root
ln -s /usr/lib/uml/modules /tmp/m/lib/modules
modprobe -d /tmp/m overlay || fail "no overlay"
mount -t overlay -o lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work overlay /tmp/root ||
	fail overlay
cd /tmp/root
[ -e lib/modules ] || ln -s /usr/lib/uml/modules lib/modules
[ -e lib/modules/$version ] || ln -s /usr/lib/uml/modules/$version lib/modules/$version
mount -t proc proc proc && mount -t sysfs sysfs sys && mount -t devtmpfs devtmpfs dev ||
	fail "proc, sys, dev"
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts
for d in dev/shm run; do mount -t tmpfs -o mode=1777 tmpfs \$d || fail \$d; done
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p run/uml run/lock run/netns
mount -t hostfs -o $work none run/uml || fail "result directory"
chroot . modprobe -a $modules || fail "modules"
ip link set lo up
chroot . setsid /bin/bash -c '. /run/uml/program' <dev/null >dev/tty1 2>&1
sync
echo o >/proc/sysrq-trigger
sleep 60
INIT
{
	printf 'stty -opost </dev/tty1\n'
	# Its own environment only: what is in ours was chosen for this machine's kernel.
	printf 'cd %q || exit 125\n' "$dir"
	printf 'env -i PATH=%q HOME=%q TERM=dumb BRAID_UML=1' "$PATH" "${HOME:-/root}"
	[ ${#environment[@]} -eq 0 ] || printf ' %q' "${environment[@]}"
	printf ' %q' "$@"
	# shellcheck disable=SC2016 # for the shell that reads it
	printf '\ncode=$?\nsleep 0.05\necho $code >/run/uml/code\n'
} >"$work/program"
chmod +x "$work/init"

# The program's terminal is descriptor 3, the kernel's console a file. timeout kills the whole
# group: the kernel is several processes. The kernel makes its descriptors non-blocking; cat keeps
# that from whoever else writes to our output. The parentheses keep the shell's own words about a
# kernel that aborts in the log.
code=0
exec 3> >(exec cat) 4>"$work/console"
cat=$!
(LD_PRELOAD=$work/regset.so timeout --kill-after=5 "$limit" linux.uml "mem=$mem" \
	rootfstype=hostfs rootflags=/ rw "init=$work/init" uml_dir="$work/" umid=machine \
	con=null con0=null,fd:4 con1=null,fd:3 quiet panic=-1 </dev/null || exit $?) \
	>"$work/log" 2>&1 || code=$?
exec 3>&-
wait "$cat" || true
if [ -s "$work/code" ]; then
	exit "$(cat "$work/code")"
fi
case $code in
124 | 137) say "not finished after $limit s: killed" ;;
*) say "the kernel did not get to the end (exit code $code)" ;;
esac
tail -n 40 "$work/log" "$work/console" >&2
exit 125
