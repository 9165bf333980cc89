#!/bin/sh
# Makes a lab host fit to be a node and becomes PROGRAM, the first that a node needs.
#   kubernetes-node.sh GROUP PROGRAM...
# GROUP: control group below which the kubelet keeps its pods, in every hierarchy that the machine has.
set -eu
group=$1
shift

# The kubelet wants volumes' mounts to reach containers.
mount --make-rshared /

# The kubelet sets these for the whole machine: it gets copies to write to.
mkdir -p /run/kubernetes-sysctl
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$name" ] || continue
  copy=/run/kubernetes-sysctl/$(echo "$name" | tr / _)
  [ ! -e "$copy" ] || continue
  cat "/proc/sys/$name" >"$copy"
  mount --bind "$copy" "/proc/sys/$name"
done

# In version 1 a new group of the controller cpuset may use nothing until it is told what.
for root in /sys/fs/cgroup/*/; do
  path=$root
  for part in $(echo "$group" | tr / ' '); do
    parent=$path path=$path$part/
    mkdir -p "$path" 2>/dev/null || continue 2
    [ ! -e "$path/cpuset.cpus" ] || [ -n "$(cat "$path/cpuset.cpus")" ] || cat "$parent/cpuset.cpus" >"$path/cpuset.cpus"
    [ ! -e "$path/cpuset.mems" ] || [ -n "$(cat "$path/cpuset.mems")" ] || cat "$parent/cpuset.mems" >"$path/cpuset.mems"
  done
done

# Kubelets of this age ask a cloud's metadata server first; nobody answers here, and it shall know at once.
ip route replace unreachable 169.254.169.254/32

# Programs that the runtime starts are the node's own, and so are pods' logs: a kubelet removes those of pods that it does not know.
for folder in opt var/log; do
  mountpoint -q "/$folder" && continue
  upper=/var/lib/docker/$folder
  mkdir -p "$upper" "$upper.work"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$upper,workdir=$upper.work" "/$folder"
done
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/kubernetes/manifests /run/containerd
exec "$@"
