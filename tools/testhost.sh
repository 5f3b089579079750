#!/usr/bin/env bash
# A real host to test container mode on: Debian 13 with systemd and rootless
# Podman, booted as a container of its own on a machine that has neither. It
# needs root, mmdebstrap and systemd-nspawn; test/testhost drives it.
#
#	tools/testhost.sh build        makes the root file system unless it is there, prints its path
#	tools/testhost.sh boot DIR     boots it with what is written below DIR; in namespaces of the caller's making
#	tools/testhost.sh sweep        removes what killed runs and older recipes left behind
#
# A root file system is only ever read: each boot has an overlay of its own, so
# that two can run at once and neither spoils the next.
set -euo pipefail

cache=${AGENTCAGE_TESTHOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agentcage-testhost}
suite=trixie
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,podman,crun,netavark,aardvark-dns,passt,uidmap
packages+=,fuse-overlayfs,nftables,iproute2,iputils-ping,curl,ca-certificates,procps
die() {
	echo "testhost: $*" >&2
	exit 1
}

# mirror prints where this machine gets Debian from: the tests look no further
# than the machine itself does.
mirror() {
	local uri=${AGENTCAGE_TESTHOST_MIRROR:-}
	[ -n "$uri" ] || uri=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')
	[ -n "$uri" ] || die 'no Debian mirror in the sources of apt (run apt-get update), nor in AGENTCAGE_TESTHOST_MIRROR'
	printf '%s\n' "$uri"
}

# aptopts passes on how the machine reaches its mirror.
aptopts() {
	apt-config dump --no-empty | grep -E '^Acquire::(http|https|Check-Valid-Until|Check-Date|Retries)\b' || true
}

# debootstrap makes a root file system out of packages.
debootstrap() {
	mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include="$packages" --aptopt="$1" \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$2" "$3"
}

# customise works in the new root file system, before anything in it has started.
customise() {
	local root=$1
	chroot "$root" useradd --create-home --shell /bin/bash agent
	mkdir -p "$root/var/lib/systemd/linger" "$root/etc/containers"
	touch "$root/var/lib/systemd/linger/agent"
	# Neither the pids controller nor add_key(2) can be had in here.
	printf '[containers]\npids_limit = 0\nkeyring = false\n' >"$root/etc/containers/containers.conf"
	echo testhost >"$root/etc/hostname"
	printf '127.0.0.1 localhost testhost\n::1 localhost\n' >"$root/etc/hosts"
	: >"$root/etc/machine-id"
	# It is as new as its files are; systemd-update-done.service(8).
	touch "$root/etc/.updated" "$root/var/.updated"
	# What a machine has to do at boot and a test does not wait for.
	local unit
	for unit in systemd-modules-load.service systemd-pstore.service getty.target console-getty.service \
		apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer remote-fs.target \
		systemd-networkd.service systemd-resolved.service netavark-dhcp-proxy.socket netavark-dhcp-proxy.service; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
}

# A change of the recipe makes another root file system.
recipe=$({ echo "$suite $packages $(uname -m)"; declare -f customise debootstrap; } | sha256sum | cut -c1-16)
base=$cache/$recipe

# tried tells whether a lock is nobody's, and keeps it in descriptor 8 if so.
tried() {
	exec 8>>"$1"
	flock -n 8
}

# emptied ends what still runs in a control group and removes it.
emptied() {
	local group=$1 dir
	[ -d "$group" ] || return 0
	[ ! -e "$group/cgroup.kill" ] || echo 1 >"$group/cgroup.kill"
	# Processes that were killed leave a moment later; there is no event for it
	# that a shell could wait for.
	for _ in $(seq 100); do
		grep -q 'populated 1' "$group/cgroup.events" 2>/dev/null || break
		sleep 0.05
	done
	find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

# hierarchy prints where version 2 of the control groups is mounted, with or
# without version 1 beside it.
hierarchy() {
	awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts
}

# sweep takes the locks, so that what is in use stays.
sweep() {
	local lock dir
	for lock in "$cache"/run/*.lock; do
		[ -e "$lock" ] || continue
		dir=${lock%.lock}
		if tried "$lock"; then
			emptied "$(hierarchy)/agentcage-testhost-${dir##*/}"
			rm -rf --one-file-system "$dir" "$lock"
		fi
	done
	# Another checkout may have another recipe and is not to build it each time.
	for lock in $(find "$cache" -maxdepth 1 -name '*.lock' -mtime +7); do
		[ "$lock" != "$base.lock" ] || continue
		if tried "$lock"; then
			rm -rf --one-file-system "${lock%.lock}" "${lock%.lock}".part "$lock"
		fi
	done
	exec 8>&-
}

build() {
	mkdir -p "$cache/run"
	chmod 700 "$cache"
	touch "$base.lock"
	if [ -d "$base" ]; then
		printf '%s\n' "$base"
		return
	fi
	# Whoever comes second waits for the first and finds the work done.
	exec 9>>"$base.lock"
	flock 9
	if [ ! -d "$base" ]; then
		sweep
		rm -rf --one-file-system "$base.part"
		local from opts
		from=$(mirror)
		opts=$(mktemp)
		aptopts >"$opts"
		debootstrap "$opts" "$base.part" "$from" >&2 || die "cannot build $suite from $from"
		rm -f "$opts"
		customise "$base.part"
		sync -f "$base.part"
		mv "$base.part" "$base"
	fi
	printf '%s\n' "$base"
}

# boot returns when the host has been switched off. The caller has made a mount and a network namespace; what
# is mounted and made here goes with them, and the machine's own stay as they are.
boot() {
	local run=$1 group code
	mkdir -p "$run"/{upper,work,root,home,share,dev}
	mount -t overlay -o "lowerdir=$base,upperdir=$run/upper,workdir=$run/work" overlay "$run/root"
	# Rootless Podman keeps its layers in the home directory, and an overlay
	# cannot be the upper layer of another.
	cp -a "$base/home/agent" "$run/home/"
	# The machine's own device files may be root's alone.
	mount -t tmpfs -o mode=755 tmpfs "$run/dev"
	mknod -m 666 "$run/dev/tun" c 10 200
	mknod -m 666 "$run/dev/fuse" c 10 229
	# crun refuses the mix of both versions, and two hosts need a group each.
	umount -R /sys/fs/cgroup
	mount -t cgroup2 none /sys/fs/cgroup
	group=/sys/fs/cgroup/agentcage-testhost-${run##*/}
	mkdir "$group"
	echo $$ >"$group/cgroup.procs"
	ip link set lo up
	# 133 asks for another start: a reboot.
	code=133
	while [ $code = 133 ]; do
		code=0
		setpriv --pdeathsig KILL systemd-nspawn --quiet --directory="$run/root" --machine="testhost-${run##*/}" --keep-unit --register=no \
			--boot --notify-ready=yes --console=passive --capability=all --system-call-filter='@keyring bpf' \
			--network-veth --resolv-conf=off --timezone=off --link-journal=no \
			--bind="$run/dev/tun:/dev/net/tun" --bind="$run/dev/fuse:/dev/fuse" \
			--bind="$run/home/agent:/home/agent" --bind="$run/share:/share" </dev/null || code=$?
	done
	exit "$code"
}

case ${1:-} in
build | sweep) "$1" ;;
boot)
	[ -d "${2:-}" ] || die 'boot needs the directory of its run'
	boot "$2"
	;;
*) die 'say build, sweep or boot DIR' ;;
esac
