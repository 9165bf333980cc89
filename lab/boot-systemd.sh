#!/bin/sh
# The first process of a lab host that is run by systemd, as most real hosts are: makes a machine of its own out of this one
# and becomes systemd. All of the file system is a copy in memory that goes with the host, but for the engine's folder, which
# needs a real file system below it. What the kernel has once for all namespaces (sysctls outside net, device nodes, uevents)
# is kept out of reach, as container managers do: https://systemd.io/CONTAINER_INTERFACE
# Runs in fresh net, mount, pid, uts, ipc and cgroup namespaces (lab/systemd.ts). Writes its number, as the machine counts,
# and "ready" to its output before systemd takes over.
#   boot-systemd.sh LAB HOST DISK DNS CHECKOUT
set -eu
host=$2 disk=$3 dns=$4 checkout=$5
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# /proc is still the machine's, so this is the number by which others can enter our namespaces.
read -r pid _ </proc/self/stat

# In memory, because the upper part of an overlay may not lie inside its lower one. Mounts of the machine are not copied.
mkdir -p "$disk/docker" "$disk/system"
mount -t tmpfs -o mode=755 tmpfs "$disk/system"
mkdir "$disk/system/upper" "$disk/system/work" "$disk/system/root"
root=$disk/system/root
# What of this and other labs lies there changes meanwhile, so it is not removed but hidden whole, by a whiteout (overlayfs.rst).
mkdir -p "$disk/system/upper/var/cache"
for folder in /var/cache/causeway*; do [ ! -e "$folder" ] || mknod "$disk/system/upper$folder" c 0 0; done
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/system/upper,workdir=$disk/system/work" "$root"

mount -t proc proc "$root/proc"
# Of /proc/sys only what belongs to the network namespace may be written.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,ro "$root/proc/sys"
if [ -e "$root/proc/sysrq-trigger" ]; then mount --bind /dev/null "$root/proc/sysrq-trigger"; fi

mount -t sysfs sysfs "$root/sys"
# In a new control group namespace this shows nothing but what is below our own group. A machine may still have version 1
# beside it; its hierarchies are not mounted here, so systemd and the engine see version 2 alone.
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$root/dev/"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
[ ! -e /dev/net/tun ] || cp -a /dev/net/tun "$root/dev/net/"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/lock"

# A freshly installed Debian with Docker: nothing of what this machine starts, mounts or has of Causeway.
rm -rf "$root"/etc/systemd/system/*.wants/* "$root"/etc/systemd/system/*.requires/* "$root"/etc/rc?.d/* "$root"/etc/docker/daemon.json
rm -rf "$root"/etc/systemd/system/causeway* "$root"/etc/default/causeway* "$root"/etc/sysctl.d/*causeway* "$root/etc/causeway" \
  "$root/root/.config/causeway" "$root/root/.cache/causeway" "$root/var/lib/causeway" "$root/usr/lib/causeway" "$root/usr/bin/causeway"
: >"$root/etc/fstab"
# What would only take time, or speak to the machine's devices.
for unit in ldconfig systemd-journal-catalog-update systemd-modules-load modprobe@ kmod-static-nodes systemd-udevd systemd-udev-trigger \
  systemd-udev-settle systemd-hwdb-update apparmor; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id"
echo "nameserver $dns" >"$root/etc/resolv.conf"
echo "$host" >"$root/etc/hostname"
hostname "$host"
# An empty one would make this the first boot ever, for which systemd enables whatever is installed.
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
rm -rf "$root/var/lib/docker"
mkdir -p "$root/var/lib/docker" "$root/usr/lib/causeway"
mount --bind "$disk/docker" "$root/var/lib/docker"
mount --bind "$checkout" "$root/usr/lib/causeway"
mount -o remount,bind,ro "$root/usr/lib/causeway"

cd "$root"
mkdir .machine
pivot_root . .machine
umount -l /.machine
rmdir /.machine
ip link set lo up

echo "$pid ready"
exec env -i container=lxc "PATH=$PATH" /lib/systemd/systemd --system --unit=multi-user.target >/dev/null
