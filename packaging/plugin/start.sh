#!/bin/sh
# First process of the managed plugin. The host's /run is at /host/run, because binding the single folders would fail where
# they are not there yet, as after every boot; the root file system has links from their usual places to it.
set -eu
run=/host/run
mkdir -p $run/netns $run/docker/netns $run/causeway
if ! grep -q " $run .* shared:" /proc/self/mountinfo; then
  echo 'causeway: /run of this host is not a shared mount: it will not see our network namespaces (mount --make-rshared /run)' >&2
fi
# runc binds /proc/sys over itself read-only; what is below it is as before.
umount /proc/sys
# An option that is not set arrives as an empty string.
for name in $(env | sed -n 's/^\(CAUSEWAY_[A-Z_]*\)=$/\1/p'); do unset "$name"; done
exec node --disable-warning=ExperimentalWarning --max-semi-space-size=2 --v8-pool-size=1 /usr/lib/causeway/src/bin/agent.ts "$@"
