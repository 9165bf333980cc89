#!/bin/sh
# First process of the managed plugin. The host's /run is at /host/run, because binding the single folders would fail where
# they are not there yet, as after every boot; the root file system has links from their usual places to it.
set -eu
run=/host/run
mkdir -p $run/netns $run/docker/netns $run/causeway
if ! grep -q " $run .* shared:" /proc/self/mountinfo; then
  echo 'causeway: /run of this host is not a shared mount: it will not see our network namespaces (mount --make-rshared /run)' >&2
fi
exec causeway agent "$@"
