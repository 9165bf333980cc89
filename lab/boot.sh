#!/bin/sh
# The first process of a lab host: makes the host's own view of the machine and then reaps orphans, as an init does.
# Runs in fresh net, mount, pid, uts and ipc namespaces (lab/host.ts). Everything mounted here lives in the private mount
# namespace and goes with the host's last process. Writes its number, as the machine counts, and "ready" to its output.
#   boot.sh LAB HOST DISK DNS
set -eu
host=$2 disk=$3 dns=$4

# /proc is still the machine's, so this is the number by which others can enter our namespaces.
read -r pid _ </proc/self/stat

# Mounts of the machine that must not be kept alive by our copy of them.
umount -R -l /run/netns /run/docker /var/lib/docker 2>/dev/null || true

# Changes below /etc and /var/lib are the host's own and stay on its disk over a reboot; /run is empty after every boot.
mkdir -p "$disk/etc" "$disk/etc.work" "$disk/lib" "$disk/lib.work" "$disk/docker" "$disk/mount"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$disk/etc,workdir=$disk/etc.work" /etc
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$disk/lib,workdir=$disk/lib.work" /var/lib
mkdir -p /var/lib/docker /var/lib/causeway /etc/causeway /etc/docker
mount --bind "$disk/docker" /var/lib/docker
rm -f /etc/resolv.conf /etc/docker/daemon.json
echo "nameserver $dns" >/etc/resolv.conf
echo "$host" >/etc/hostname
[ -e "$disk/etc/machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
mount -t tmpfs -o mode=755 tmpfs /run
# As systemd has it, so that namespaces named in a managed plugin are seen by the host, and the other way round.
mount --make-shared /run
mkdir -p /run/docker /run/netns /run/causeway /run/wireguard /run/lock

# A new sysfs shows the links of this namespace; the control groups of the machine move over to it.
mount --rbind /sys/fs/cgroup "$disk/mount"
mount -t sysfs sysfs /sys
mount --move "$disk/mount" /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true

mount -t proc proc /proc
cat /proc/sys/kernel/random/uuid >/run/boot-id
mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
echo "$host" >/proc/sys/kernel/hostname
# Who forwards tells the sender of a better router (ICMP redirect), and for five minutes the sender believes it. A test that asks for an
# address of a host's before the host serves it would not find the host any more. Routers, which stand in between elsewhere, do not.
for family in ipv4 ipv6; do
  for links in all default; do echo 0 >"/proc/sys/net/$family/conf/$links/accept_redirects"; done
done
ip link set lo up

echo "$pid ready"
exec >/dev/null
while :; do
  sleep infinity &
  wait
done
