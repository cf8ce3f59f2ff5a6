#!/bin/sh
# Prints the Secrets that deploy/kubernetes refers to, with the passwords of
# .env: make -s kubernetes-secrets | kubectl apply -f -
set -eu
cd "$(dirname "$0")/.."
value() { sed -n "s/^$1=//p" .env; }
secret() {
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData:\n' "$1" "$2"
  shift 2
  for name; do printf '  %s: "%s"\n' "$name" "$(value "$name")"; done
}
secret nats gradefleet NATS_GATEWAY_PASSWORD NATS_WORKER_PASSWORD NATS_ROUTE_PASSWORD
secret nats-worker gradefleet-workers NATS_WORKER_PASSWORD
