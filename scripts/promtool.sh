#!/bin/sh
# promtool in deploy/prometheus: the machine's own, or the offline image's.
set -eu
cd "$(dirname "$0")/../deploy/prometheus"
if command -v promtool >/dev/null; then exec promtool "$@"; fi
if docker image inspect gradefleet/prometheus:offline >/dev/null 2>&1; then
  exec docker run --rm --network none --volume "$PWD:/rules:ro" --workdir /rules --entrypoint promtool gradefleet/prometheus:offline "$@"
fi
echo "no promtool here: install it (Debian: prometheus), or run make images-offline" >&2
exit 1
