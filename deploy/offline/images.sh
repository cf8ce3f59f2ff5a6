#!/bin/sh
# Makes every image of docker-compose.yml without an image registry, from a
# Debian mirror and the Go module proxy (or a filled module cache) alone.
# Grafana is not among them: neither Debian nor a Go module has it. Root, for
# debootstrap; needs a Docker engine and Go. VERSION is the tag, and LATEST=0
# leaves the tag latest alone.
set -eu
cd "$(dirname "$0")/../.."
VERSION=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
say() { echo "images: $*" >&2; }
debian=gradefleet/debian:offline
golang=gradefleet/golang:offline

# build TARGET-IMAGE ARGUMENT…: says what it does, and is silent otherwise.
build() {
  image=$1
  shift
  begun=$(date +%s)
  old=$(docker image inspect -f '{{.Id}}' "$image" 2>/dev/null || :)
  log=$(mktemp)
  if ! docker build -t "$image" "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    say "$image could not be built; the end of its log is above"
    exit 1
  fi
  rm -f "$log"
  [ -z "$old" ] || [ "$old" = "$(docker image inspect -f '{{.Id}}' "$image")" ] || docker rmi "$old" >/dev/null 2>&1 || : # or it has another name
  say "$image ($(($(docker image inspect -f '{{.Size}}' "$image") / 1000000)) MB, $(($(date +%s) - begun)) s)"
}

sh deploy/offline/base-image.sh

# The toolchain of this machine and the modules that the go.sum files name:
# builds inside need no network.
recipe=$( { go version; cat go.work go.work.sum ./*/go.mod ./*/go.sum; docker image inspect -f '{{.Id}}' "$debian"; } | sha256sum | cut -c1-16)
if [ "$(docker image inspect -f '{{index .Config.Labels "gradefleet.recipe"}}' "$golang" 2>/dev/null || :)" != "$recipe" ]; then
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  goroot=$(go env GOROOT)
  # What this machine has already is not fetched again.
  GOMODCACHE="$context/mod" GOFLAGS=-modcacherw GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" \
    go mod download || { say "the Go modules can't be fetched: is GOPROXY reachable?"; exit 1; }
  cat >"$context/Dockerfile" <<DOCKERFILE
FROM $debian
COPY go /usr/local/go
COPY mod /go/pkg/mod
ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    GOMODCACHE=/go/pkg/mod GOPROXY=off GOTOOLCHAIN=local
LABEL gradefleet.recipe=$recipe
DOCKERFILE
  tar -C "$context" -cf "$context.tar" Dockerfile mod
  tar -C "$(dirname "$goroot")" --exclude="$(basename "$goroot")/test" --transform "s,^$(basename "$goroot"),go," -rf "$context.tar" "$(basename "$goroot")"
  trap 'rm -rf "$context" "$context.tar"' EXIT
  build "$golang" - <"$context.tar"
  rm -rf "$context" "$context.tar"
  trap - EXIT
fi

ours() {
  build "gradefleet/$1:$VERSION" --target "$1" --build-arg "DEBIAN=$debian" --build-arg "GO=$golang" --build-arg "VERSION=$VERSION" \
    -f deploy/docker/Dockerfile .
  [ "${LATEST:-1}" = 0 ] || docker tag "gradefleet/$1:$VERSION" "gradefleet/$1:latest"
}
theirs() {
  build "gradefleet/$1:offline" --target "$1" --build-arg "DEBIAN=$debian" --build-arg "GO=$golang" -f deploy/offline/Dockerfile .
}
ours worker
ours gateway
theirs prometheus
theirs haproxy
theirs nats

# Of old build stages, which are kept as a cache.
docker image prune --force --filter label=gradefleet.stage=build --filter until=24h >/dev/null
say "Grafana is left out: it comes from an image registry only. Its dashboard, deploy/grafana/dashboards/gradefleet.json, can be imported into any Grafana."
