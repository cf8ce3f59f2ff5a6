#!/bin/sh
# Runs a command in a copy of the root directory that is thrown away: an overlay
# whose upper layer is in memory. For a shell that already is in mount, pid and
# network namespaces of its own (unshare), so that nothing is left but what is
# written to KEPT.
#   scripts/throwaway-root.sh KEPT COMMAND [ARG…]
set -eu
kept=$1
shift
over=/mnt
mount -t tmpfs -o mode=755 none $over
mkdir $over/upper $over/work $over/root
mount -t overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" overlay $over/root
root=$over/root
mount -t proc proc $root/proc
mount --rbind /dev $root/dev
mount -t tmpfs -o mode=1777 none $root/dev/shm
mount -t sysfs -o ro sysfs $root/sys
mount -t tmpfs -o mode=1777 none $root/tmp
mount -t tmpfs -o mode=1777 none $root/var/tmp
mount -t tmpfs -o mode=755 none $root/run
mkdir -p "$root$kept"
mount --bind "$kept" "$root$kept"
mkdir $root/old
cd $root
pivot_root . old
umount -l old
ip link set lo up 2>/dev/null || :
exec "$@"
