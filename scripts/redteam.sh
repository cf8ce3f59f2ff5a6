#!/bin/sh
# Lets the red team loose on fleets of this machine and prints the scores.
#   scripts/redteam.sh [root|user|docker|layers|all]
# root: as root; user: as a user of no rights, with a home of its own; docker:
# in a plain container, no flag of docker's that gives more; layers: as root,
# with each layer of the sandbox left out in turn, which must let attacks
# through. all: each that this machine can run. REDTEAM_FLAGS goes to the tests,
# REDTEAM_IMAGE names the image (Debian with Python 3.11), REDTEAM_SCORES a
# directory for the scores as JSON.
set -eu
cd "$(dirname "$0")/.."
what=${1:-all}
image=${REDTEAM_IMAGE:-gradefleet/worker-base:offline}
# A user of these tests only, so that every process and file of it is theirs.
user=290001

say() { echo "redteam: $*" >&2; }
have_root() { [ "$(id -u)" = 0 ]; }
have_docker() { docker image inspect "$image" >/dev/null 2>&1; }

case $what in
  root | layers) have_root || { say "$what needs root"; exit 2; } ;;
  user) ;;
  docker) have_docker || { say "no docker, or no image $image (deploy/offline/base-image.sh makes it; REDTEAM_IMAGE names another)"; exit 2; } ;;
  all) ;;
  *) say "want root, user, docker, layers or all, not $what"; exit 2 ;;
esac

dir=$(mktemp -d "${TMPDIR:-/tmp}/gradefleet-redteam-run-XXXXXX")
container=
clean() {
  status=$?
  [ -z "$container" ] || docker rm -f "$container" >/dev/null 2>&1 || :
  rm -rf "$dir"
  exit $status
}
trap clean EXIT
trap 'exit 130' INT TERM

say "building"
export CGO_ENABLED=0
go build -o "$dir/gradefleet" ./cli/cmd/gradefleet
(cd cli && go test -c -o "$dir/redteam.test" ./internal/redteam)
cp examples/problems.jsonl "$dir/"
chmod 755 "$dir" "$dir/gradefleet" "$dir/redteam.test"
mkdir "$dir/scores"
chmod 777 "$dir/scores"

failed=
# attack ENVIRONMENT TESTS COMMAND…: runs the tests by COMMAND, which takes the
# environment as arguments of env(1) and the command line behind it.
attack() {
  environment=$1 tests=$2
  shift 2
  say "attacking in environment $environment"
  "$@" env REDTEAM_ENVIRONMENT="$environment" REDTEAM_LAYERS="$([ "$environment" = layers ] && echo yes)" \
    REDTEAM_BINARY="$dir/gradefleet" REDTEAM_PROBLEMS="$dir/problems.jsonl" \
    "$dir/redteam.test" -test.run "$tests" -test.timeout 20m -score "$dir/scores/$environment.json" ${REDTEAM_FLAGS:-} || failed="$failed $environment"
}

as_user() {
  home=$dir/home
  mkdir -p "$home" && chown $user:$user "$home"
  HOME=$home setpriv --reuid $user --regid $user --clear-groups --no-new-privs "$@"
}

tests='TestRedTeam|TestUsefulPrograms|TestNoisyNeighbours'
case $what in root | all) if have_root; then attack bare-root "$tests" env; fi ;; esac
case $what in
  user | all)
    if have_root; then attack bare-user "$tests" as_user; else attack bare-user "$tests" env; fi
    ;;
esac
case $what in
  docker | all)
    if have_docker; then
      container=gradefleet-redteam-$$
      attack docker "$tests" docker run --rm --name "$container" --network none -v "$dir:$dir" "$image"
      container=
    else
      say "docker: skipped, no image $image"
    fi
    ;;
esac
case $what in
  layers | all)
    if have_root; then
      # With layers left out, attacks do get through: they get a root directory
      # that is thrown away, and processes, network and host name of their own.
      attack layers TestRemovedLayer unshare --mount --pid --fork --net --uts --ipc --propagation private \
        sh "$PWD/scripts/throwaway-root.sh" "$dir"
    fi
    ;;
esac

[ -z "${REDTEAM_SCORES:-}" ] || cp "$dir"/scores/*.json "$REDTEAM_SCORES/"
[ -z "$failed" ] || { say "failed:$failed"; exit 1; }
