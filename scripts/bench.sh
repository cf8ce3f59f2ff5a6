#!/bin/sh
# make bench: a fleet of its own, measured over HTTP. ORIGINAL=http://… adds a
# second server, alternating with the first in the same run; SECONDS_EACH is the
# time for each row.
set -eu
cd "$(dirname "$0")/.."
each="${SECONDS_EACH:-5}"
exec sh scripts/with-fleet.sh sh -c '
  each=$1; original=$2; set -- --url "$GRADEFLEET_URL"
  [ -z "$original" ] || set -- "$@" --url "$original"
  bin/gradefleet bench "$@" --clients 4 --seconds "$each" --cases 1,10,100 --run --files
  bin/gradefleet bench "$@" --clients 4 --seconds "$each" --workload examples/problems.jsonl
  bin/gradefleet bench "$@" --clients 1 --seconds "$each" --cases 1
' bench "$each" "${ORIGINAL:-}"
