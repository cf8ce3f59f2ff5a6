#!/bin/sh
# Makes sure that `docker compose` works, building it from its Go module if it
# doesn't, and prints the DOCKER_CONFIG to use it with: the plugin goes into
# .cache/, so that nothing of the machine's is touched.
#   DOCKER_CONFIG=$(scripts/compose-plugin.sh); export DOCKER_CONFIG
set -eu
cd "$(dirname "$0")/.."
# The newest that go install can build: later ones replace modules in go.mod.
module=github.com/docker/compose/v5/cmd@v5.0.2
config=$PWD/.cache/docker

if docker compose version >/dev/null 2>&1; then
  echo "${DOCKER_CONFIG:-$HOME/.docker}"
  exit 0
fi
if [ ! -x "$config/cli-plugins/docker-compose" ]; then
  echo "compose-plugin: building $module" >&2
  mkdir -p "$config/cli-plugins" "$config/gobin"
  GOWORK=off GOFLAGS= GOBIN="$config/gobin" go install "$module" >&2
  mv "$config/gobin/cmd" "$config/cli-plugins/docker-compose"
  rmdir "$config/gobin"
fi
DOCKER_CONFIG=$config docker compose version >&2
echo "$config"
