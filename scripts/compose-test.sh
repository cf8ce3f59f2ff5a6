#!/bin/sh
# make compose-test: the offline images, the rules' unit tests, and the compose
# file in a real engine, twice: as it is, and with the profile ha. Takes away
# what it started: containers, networks, volumes, and the engine if it was not
# running. The images stay, so that the next time takes minutes less;
# `docker image prune` and `docker rmi` take them.
#   scripts/compose-test.sh prepare   only makes the images and the plugin
set -eu
cd "$(dirname "$0")/.."

begun=$(date +%s)
took() { echo "compose-test: $1: $(($(date +%s) - begun)) s from the start" >&2; }

# Images and plugin are made side by side: one waits for the network, the other
# for the processors.
prepare() {
  mkdir -p .cache
  scripts/compose-plugin.sh >.cache/compose-config 2>.cache/compose-log &
  plugin=$!
  VERSION=compose-test LATEST=0 sh deploy/offline/images.sh
  wait $plugin || { cat .cache/compose-log >&2; exit 1; }
  DOCKER_CONFIG=$(cat .cache/compose-config)
  export DOCKER_CONFIG
  took "images and plugin"
}
if [ "${1:-}" = prepare ]; then
  prepare
  exit 0
fi

prefix=gradefleet-test-$$
engine=$(scripts/docker-engine.sh)
cleanup() {
  status=$?
  trap - EXIT INT TERM
  # The tests take down what they brought up; this is for those that were cut off.
  left=$(docker ps -aq --filter "name=^$prefix")
  if [ -n "$left" ]; then
    # Those of workers that were made anew bear no name of the project's.
    volumes=$(docker inspect -f '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}' $left)
    docker rm -f $left >/dev/null || :
    docker volume rm $volumes >/dev/null || :
  fi
  for kind in volume network; do
    left=$(docker $kind ls -q --filter "name=^$prefix")
    [ -z "$left" ] || docker $kind rm $left >/dev/null || :
  done
  case $engine in
  started*)
    kill "${engine#started }"
    while kill -0 "${engine#started }" 2>/dev/null; do sleep 0.2; done
    ;;
  esac
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

prepare
make -s build rules-test
took "programs and rules"
GRADEFLEET_VERSION=compose-test COMPOSE_TEST=$prefix sh -c 'cd cli && go test -count=1 -timeout 15m -v -run "^${COMPOSE_TESTS:-TestCompose.*}$" ./internal/fleettest'
took "all"
