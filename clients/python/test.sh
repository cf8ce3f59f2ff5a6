#!/bin/sh
# Tests the client: against a scripted server, and against a fleet that is
# started for it. Needs a Python with httpx, pydantic and pytest; PYTHON names it.
set -eu
cd "$(dirname "$0")/../.."
if [ -z "${PYTHON:-}" ]; then
  for p in /usr/bin/python3 python3; do
    if "$p" -c 'import httpx, pydantic, pytest' 2>/dev/null; then PYTHON=$p; break; fi
  done
fi
if [ -z "${PYTHON:-}" ]; then
  echo "the Python client's tests need httpx, pydantic and pytest: install python3-httpx python3-pydantic python3-pytest, or name a Python that has them with PYTHON" >&2
  exit 1
fi
export PYTHON PYTHONDONTWRITEBYTECODE=1
exec sh scripts/with-fleet.sh sh -c 'cd clients/python && exec "$PYTHON" -m pytest -q -p no:cacheprovider'
