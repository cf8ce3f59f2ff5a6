#!/bin/sh
# Makes sure that a Docker engine answers, and prints one line that says whose
# it is: "running" (it was there, leave it) or "started PID" (end that process
# when done). Installs Debian's engine if there is none and this is root.
#   engine=$(scripts/docker-engine.sh); …; case $engine in started*) kill "${engine#started }";; esac
set -eu
say() { echo "docker-engine: $*" >&2; }

if docker version >/dev/null 2>&1; then echo running; exit 0; fi
if [ "$(id -u)" != 0 ]; then
  say "no engine answers, and only root can start one: start Docker, or set DOCKER_HOST to one that runs"
  exit 1
fi
if ! command -v dockerd >/dev/null; then
  command -v apt-get >/dev/null || { say "no dockerd here and no apt-get to install it with: install a Docker engine"; exit 1; }
  say "installing Debian's docker.io"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >/dev/null; } >&2
  # Installing may have started it already.
  if docker version >/dev/null 2>&1; then echo running; exit 0; fi
fi
log=${DOCKERD_LOG:-/tmp/dockerd.log}
nohup setsid dockerd >"$log" 2>&1 </dev/null &
pid=$!
i=0
until docker version >/dev/null 2>&1; do
  i=$((i + 1))
  if [ "$i" -gt 60 ] || ! kill -0 "$pid" 2>/dev/null; then
    say "dockerd does not answer; the end of $log:"
    tail -n 5 "$log" >&2
    kill "$pid" 2>/dev/null || :
    exit 1
  fi
  sleep 1
done
echo "started $pid"
