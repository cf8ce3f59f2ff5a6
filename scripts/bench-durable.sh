#!/bin/sh
# make bench-durable: two fleets side by side, one that stores sessions and one
# that doesn't, asked in turns; the ratio is what durability costs.
set -eu
cd "$(dirname "$0")/.."
each="${SECONDS_EACH:-5}"
GRADEFLEET_DURABILITY=durable exec sh scripts/with-fleet.sh sh -c '
  DURABLE=$GRADEFLEET_URL GRADEFLEET_DURABILITY=local exec sh scripts/with-fleet.sh sh -c "
    bin/gradefleet bench --url \$DURABLE --url \$GRADEFLEET_URL --clients 4 --seconds $1 --run --files"
' bench "$each"
