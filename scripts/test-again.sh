#!/bin/sh
# Runs the tests that failed in the output of `go test` five times more, one
# package at a time: what fails by itself fails again; what only a crowded
# machine makes fail is told as such, with its first output above. No second
# chance for a data race, a panic, a timeout, a package that doesn't build, or
# more than MOST tests.
#   scripts/test-again.sh OUTPUT
set -eu
cd "$(dirname "$0")/.."
MOST=2
TIMES=5
tab=$(printf '\t')
if grep -Eq "^(WARNING: DATA RACE|panic: |fatal error: |FAIL$tab.*\[)" "$1"; then
  echo "not tried again: a data race, a panic, a timeout or a package that doesn't build"
  exit 1
fi
# package, tab, test: a package's line comes after its tests
failed=$(awk '/^--- FAIL: / { tests[n++] = $3 }
  /^(ok|FAIL|\?)[ \t]/ { if ($1 == "FAIL") { if (!n) print $2 "\t"; for (i = 0; i < n; i++) print $2 "\t" tests[i] } n = 0 }' "$1")
count=$(printf '%s' "$failed" | grep -c '' || :)
if [ "$count" = 0 ] || [ "$count" -gt "$MOST" ] || printf '%s\n' "$failed" | grep -q "$tab\$"; then
  echo "not tried again: $count tests failed, or a package without saying which"
  exit 1
fi
printf '%s\n' "$failed" | while IFS=$tab read -r package test; do
  echo "$test of $package failed, see above; $TIMES times more, alone"
  out=$(${GO:-go} test -race -timeout 5m -count="$TIMES" -run "^$test\$" "$package" 2>&1) && ! echo "$out" | grep -q "no tests to run" || { echo "$out"; exit 1; }
  echo "passed $TIMES times: $test of $package fails by chance and is to be mended"
done
