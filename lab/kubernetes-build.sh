#!/bin/bash
# Builds programs of a real Kubernetes from Debian's source package, because Debian's newer releases carry kubectl only.
# The package is fetched through an apt configuration of its own, so that the machine's apt never sees the older release.
# Whoever runs it again goes on where it ended; of two at once the second waits and finds the work done.
#   kubernetes-build.sh WORK TARGET PROGRAM...
# WORK keeps 3 GB of sources and compiler cache until all is built; TARGET gets the programs, each in one step.
set -euo pipefail
work=$1 target=$2
shift 2
release=bookworm version=1.20.5+really1.20.2
source=$work/kubernetes-$version

exec 9>"$work.lock"
flock 9
missing=()
for program in "$@"; do [ -e "$target/${program##*/}" ] || missing+=("$program"); done
[ ${#missing[@]} -gt 0 ] || exit 0

fetch() {
  local mirror
  # the archive that this machine uses already
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$')
  mkdir -p "$work"/apt/{lists/partial,cache/archives/partial}
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$work/apt/sources.list"
  cat >"$work/apt/apt.conf" <<END
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt/cache";
APT::Sandbox::User "root";
END
  export APT_CONFIG=$work/apt/apt.conf
  apt-get update -qq
  rm -rf "$source"
  (cd "$work" && apt-get source -qq --only-source "kubernetes/$release")
  unset APT_CONFIG
  touch "$work/fetched"
}

[ -e "$work/fetched" ] || fetch
go=$(ls -d /usr/lib/go-1.* | sort -V | tail -1)
export GOROOT=$go PATH=$go/bin:$PATH GOCACHE=$work/go-cache HOME=$work
export CGO_ENABLED=0 GOFLAGS=${GOFLAGS:--p=2} GOTOOLCHAIN=local GOPROXY=off GO111MODULE=off
# Without it every program calls itself v0.0.0, which kubectl and the kubelet refuse to compare.
export KUBE_GIT_VERSION_FILE=$work/version
cat >"$KUBE_GIT_VERSION_FILE" <<'END'
KUBE_GIT_COMMIT='faecb196815e248d3ecfb03c680a4507229c2a56'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='v1.20.2'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
END
mkdir -p "$target"
cd "$source"
# The one of the source looks into maps as they were before Go 1.24: every custom resource would end the API server.
reflect2=vendor/github.com/modern-go/reflect2
rm -rf "$reflect2"
cp -rL "/usr/share/gocode/src/${reflect2#vendor/}" "$reflect2"
[ -e "$work/generated" ] || { make generated_files && touch "$work/generated"; }
for program in "${missing[@]}"; do
  name=${program##*/}
  make "WHAT=$program" GOLDFLAGS='-s -w'
  cp "_output/local/bin/linux/$("$go/bin/go" env GOARCH)/$name" "$target/.$name"
  mv "$target/.$name" "$target/$name"
done
cd /
rm -rf "$work"
