#!/bin/sh
# make bench: everything measured in turns in one run, see docs/performance.md.
#   ORIGINAL=http://…   another server of the documented API, in the same run
#   WORKLOAD=file       another workload (.jsonl or .jsonl.gz) than the examples
#   LIMIT=300           rows of it that are taken
#   SECONDS_EACH=5      time for each kind of request on each server
#   JSON=1              print JSON
set -eu
cd "$(dirname "$0")/.."
set -- --rows limit,engine,fleet,processes --seconds "${SECONDS_EACH:-5}" \
  --cases 1,10,100 --single --run --files --workload "${WORKLOAD:-examples/problems.jsonl}" --limit "${LIMIT:-300}" "$@"
[ -z "${ORIGINAL:-}" ] || set -- --original "$ORIGINAL" "$@"
[ -z "${JSON:-}" ] || set -- --json "$@"
exec bin/gradefleet bench "$@"
