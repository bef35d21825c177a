#!/usr/bin/env bash
# Install the Debian packages named on the command line that are missing. Without root or apt, say what is left out:
# bundles and unit tests need none of them.
set -euo pipefail
missing=()
for package in "$@"; do
  if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then missing+=("$package"); fi
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "not a Debian system: live nodes and kernel tests are left out (they need: ${missing[*]})" >&2
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "not root: live nodes and kernel tests are left out (as root: apt-get install ${missing[*]})" >&2
  exit 0
fi
echo "installing ${missing[*]}" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
