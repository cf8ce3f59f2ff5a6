#!/bin/sh
# Makes the bases of the offline images from a Debian mirror alone, no image
# registry: gradefleet/debian:offline (debootstrap and docker import) and
# gradefleet/worker-base:offline (the stage `base` of deploy/docker/Dockerfile on it).
# Root, on any system with debootstrap; skips what is there and unchanged.
#
# The mirror is $DEBIAN_MIRROR, else the one this machine's apt uses for
# Debian 12, else debootstrap's own. The imported image keeps that choice, with
# apt's proxy and date settings, so that builds inside containers reach it too.
set -eu
cd "$(dirname "$0")/../.."
suite=bookworm
debian=gradefleet/debian:offline
worker=gradefleet/worker-base:offline
# Without buildx, docker has only the old builder, which does as well here.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
say() { echo "base-image: $*" >&2; }

digest_of() { docker image inspect -f '{{index .Config.Labels "gradefleet.recipe"}}' "$1" 2>/dev/null || :; }

# What this machine's apt knows: "URI suite" for each Debian 12 source.
sources() {
  command -v apt-get >/dev/null || return 0
  apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
    awk -v s="$suite" '$2 == s || $2 == s "-updates" || $2 == s "-security"' | sort -u
}
apt_settings() {
  command -v apt-config >/dev/null || return 0
  apt-config dump 2>/dev/null |
    grep -E '^Acquire::(http::Proxy|https::Proxy|Check-Valid-Until|Check-Date) ' || :
}

if [ -n "${DEBIAN_MIRROR:-}" ]; then
  list="$DEBIAN_MIRROR $suite
$DEBIAN_MIRROR $suite-updates"
  [ -z "${DEBIAN_SECURITY_MIRROR:-}" ] || list="$list
$DEBIAN_SECURITY_MIRROR $suite-security"
else
  list=$(sources)
fi
mirror=$(echo "$list" | awk -v s="$suite" '$2 == s { print $1; exit }')

recipe=$( { sed -n '/^  say "making $debian"/,/^fi/p' "$0"; echo "$list"; apt_settings; } | sha256sum | cut -c1-16)
if [ "$(digest_of "$debian")" = "$recipe" ]; then
  say "$debian is up to date"
else
  [ "$(id -u)" = 0 ] || { say "debootstrap needs root: run this as root, once"; exit 1; }
  if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || { say "no debootstrap here: install it"; exit 1; }
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap debian-archive-keyring >/dev/null; } >&2
  fi
  say "making $debian"
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  # shellcheck disable=SC2086 — no mirror means debootstrap's own.
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" $mirror >"$root.log" 2>&1 || {
    say "debootstrap failed; the end of its log:"; tail -n 5 "$root.log" >&2; rm -f "$root.log"; exit 1; }
  rm -f "$root.log"
  if [ -n "$list" ]; then
    echo "$list" | awk '{ print "deb " $1 " " $2 " main" }' >"$root/etc/apt/sources.list"
  fi
  apt_settings >"$root/etc/apt/apt.conf.d/90build"
  # A container has no use for documentation, and no services to start.
  printf 'path-exclude /usr/share/doc/*\npath-include /usr/share/doc/*/copyright\npath-exclude /usr/share/man/*\npath-exclude /usr/share/locale/*\n' \
    >"$root/etc/dpkg/dpkg.cfg.d/slim"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/var/log/*.log
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  tar -C "$root" -c . | docker import -c 'CMD ["/bin/sh"]' -c "LABEL gradefleet.recipe=$recipe" - "$debian" >/dev/null
  rm -rf "$root"
  trap - EXIT
fi

recipe=$( { echo "$recipe"; sed -n '/ AS base$/,/ AS build$/p' deploy/docker/Dockerfile; } | sha256sum | cut -c1-16)
if [ "$(digest_of "$worker")" = "$recipe" ]; then
  say "$worker is up to date"
else
  say "making $worker"
  # An empty context: the stage copies nothing.
  docker build -q --target base --build-arg "DEBIAN=$debian" --label "gradefleet.recipe=$recipe" \
    -t "$worker" - <deploy/docker/Dockerfile 2>&1 >/dev/null | grep -v -e DEPRECATED -e BuildKit -e environment-variable >&2 || :
  [ "$(digest_of "$worker")" = "$recipe" ] || { say "$worker was not made; see above"; exit 1; }
fi
