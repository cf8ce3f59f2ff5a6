#!/bin/sh
# Starts a fleet of its own in one process, on free ports of the loopback, runs
# a command with GRADEFLEET_URL set, and stops the fleet again.
#   scripts/with-fleet.sh COMMAND [ARG…]
set -eu
cd "$(dirname "$0")/.."
[ -x bin/gradefleet ] || make -s build
data=$(mktemp -d "${TMPDIR:-/tmp}/gradefleet-fleet-XXXXXX")
chmod 711 "$data"
fleet=
stop() {
  status=$?
  if [ -n "$fleet" ]; then kill "$fleet" 2>/dev/null && wait "$fleet" || true; fi
  [ $status = 0 ] || tail -n 40 "$data/log" >&2
  rm -rf "$data"
  exit $status
}
: >"$data/out" >"$data/log"
trap stop EXIT
trap 'exit 130' INT TERM
LISTEN=127.0.0.1:0 MONITOR=127.0.0.1:0 DATA="$data/state" bin/gradefleet up >"$data/out" 2>"$data/log" &
fleet=$!
tries=0
until GRADEFLEET_URL=$(sed -n 's/^  API  *\(http.*\)$/\1/p' "$data/out" | head -n 1) && [ -n "$GRADEFLEET_URL" ] &&
  curl -fs -o /dev/null --max-time 2 "$GRADEFLEET_URL/workers" && curl -fs --max-time 2 "$GRADEFLEET_URL/workers" | grep -q '"worker"'; do
  kill -0 "$fleet" 2>/dev/null || { echo "the fleet ended by itself" >&2; exit 1; }
  tries=$((tries + 1))
  [ $tries -lt 1200 ] || { echo "the fleet is not ready after two minutes" >&2; exit 1; }
  sleep 0.1
done
export GRADEFLEET_URL
"$@"
