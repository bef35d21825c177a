#!/usr/bin/env bash
# The tests against a real API server: build it and kubectl from their Go module, once, and run what is marked "cluster".
# Arguments go to pytest. Without Go or etcd the tests are left out, and it is said why.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v1.35.0
staging=v0.35.0
directory=$PWD/build/cluster
server=$directory/kube-apiserver-$version
client=$directory/kubectl-$version
needed=1.25

left_out() { echo "make test-cluster is left out: $1" >&2; exit 0; }

command -v etcd >/dev/null || left_out "etcd is not installed (Debian: apt-get install etcd-server)"
command -v openssl >/dev/null || left_out "openssl is not installed"
if [ ! -x "$server" ] || [ ! -x "$client" ]; then
  command -v go >/dev/null || left_out "Go is not installed, and the API server is built from its Go module"
  found=$(go env GOVERSION)
  [ "$(printf '%s\n' "$needed" "${found#go}" | sort -V | head -1)" = "$needed" ] ||
    left_out "Go $needed or later is needed to build the API server, this is ${found:-too old}"
  echo "building kube-apiserver and kubectl $version: a few minutes, once" >&2
  build=$directory/module
  mkdir -p "$build"
  cd "$build"
  # A module's replacements count in that module alone: repeat them here, with released versions for its directories.
  source=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
  {
    printf 'module throwaway\n\ngo %s\n\nrequire k8s.io/kubernetes %s\n\n' "$(sed -n 's/^go //p' "$source")" "$version"
    sed -n '/^replace (/,/^)/p' "$source" | sed -E "s|=> \./staging/src/(.*)\$|=> \1 $staging|"
  } >go.mod
  printf 'package throwaway\n\nimport (\n\t_ "k8s.io/kubernetes/cmd/kube-apiserver/app"\n\t_ "k8s.io/kubectl/pkg/cmd"\n)\n' >throwaway.go
  nice go mod tidy >tidy.log 2>&1 || { tail -5 tidy.log >&2; exit 1; }
  for program in "$server" "$client"; do
    name=$(basename "$program" "-$version")
    nice go build -buildvcs=false -o "$program.part" "k8s.io/kubernetes/cmd/$name"
    mv "$program.part" "$program"
  done
  cd - >/dev/null
fi
CALICO_DEBUG_API_SERVER=$server CALICO_DEBUG_KUBECTL=$client exec .venv/bin/python -m pytest -m cluster "$@"
