#!/bin/sh
# Makes .env, which docker compose reads, with a random password for each
# purpose. What is there already stays as it is.
set -eu
cd "$(dirname "$0")/.."
umask 077
touch .env
chmod 600 .env
for name in NATS_GATEWAY_PASSWORD NATS_WORKER_PASSWORD NATS_ROUTE_PASSWORD GRAFANA_PASSWORD; do
  grep -q "^$name=" .env && continue
  # A letter first: NATS would read digits as a number.
  echo "$name=s$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >>.env
  echo "secrets: $name is in .env" >&2
done
