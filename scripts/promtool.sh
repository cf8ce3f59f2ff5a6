#!/bin/sh
# promtool in deploy/prometheus: the machine's own, the offline image's, or the
# one of Debian's package, which is unpacked into .cache and not installed: that
# would start a service.
set -eu
cd "$(dirname "$0")/.."
cached=$PWD/.cache/promtool
rules=$PWD/deploy/prometheus

# fetch unpacks Debian's. It says why it can't.
fetch() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "no apt-get to fetch it with"; return 1; }
  mkdir -p .cache || return 1
  dir=$(mktemp -d "$PWD/.cache/promtool-XXXXXX") || return 1
  trap 'rm -rf "$dir"' EXIT
  sandbox=
  if [ "$(id -u)" = 0 ]; then sandbox="-o APT::Sandbox::User=root"; fi # apt's own user can't write here
  # shellcheck disable=SC2086 # the option is two words, or none
  if ! (cd "$dir" && apt-get download -qq $sandbox prometheus) >"$dir/log" 2>&1; then
    # The lists of packages may be missing or old, and only root can fetch them.
    if [ "$(id -u)" != 0 ] || ! (apt-get update -qq && cd "$dir" && apt-get download -qq $sandbox prometheus) >>"$dir/log" 2>&1; then
      echo "apt-get can't fetch the package prometheus: $(tail -n 1 "$dir/log")"
      return 1
    fi
  fi
  if ! { dpkg-deb -x "$dir"/prometheus_*.deb "$dir/root" && "$dir/root/usr/bin/promtool" --version; } >"$dir/log" 2>&1; then
    echo "the package prometheus has no promtool that runs here: $(tail -n 1 "$dir/log")"
    return 1
  fi
  mv "$dir/root/usr/bin/promtool" "$cached"
}

cd "$rules"
if command -v promtool >/dev/null; then exec promtool "$@"; fi
if [ -x "$cached" ]; then exec "$cached" "$@"; fi
if docker image inspect gradefleet/prometheus:offline >/dev/null 2>&1; then
  exec docker run --rm --network none --volume "$PWD:/rules:ro" --workdir /rules --entrypoint promtool gradefleet/prometheus:offline "$@"
fi
cd ../..
if why=$(fetch); then
  cd "$rules"
  exec "$cached" "$@"
fi
echo "no promtool here, and $why: install it (Debian: prometheus), or run make images-offline" >&2
exit 1
