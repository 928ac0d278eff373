# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share: where things live, and how they speak. Sourced, never run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Binaries and images outlive clusters: building them takes minutes, starting a cluster seconds.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/outrigger-kubernetes
binaries=$cache/bin
images=$cache/images

# The programs of a cluster and of its tests, in the order in which they are built.
programs=(etcd kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy coredns apps helm cert-manager)

# One line on stderr: stdout is for what a caller wants to read.
say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# program NAME: where its binary is. A ready one in KUBEBUILDER_ASSETS goes before a built one.
program() {
  if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; then
    echo "$KUBEBUILDER_ASSETS/$1"
  else
    echo "$binaries/$1"
  fi
}
