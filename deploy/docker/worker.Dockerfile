# The image of a worker: Debian's Python with the packages that submissions use.
# The bases are build arguments, so that `make images-offline` builds from this
# same file with the bases that deploy/offline made.
ARG DEBIAN=debian:12-slim

FROM ${DEBIAN} AS base
# The first line is the interpreter and its packages; gcc is for submissions
# that compile something.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      python3 python3-numpy python3-pandas python3-scipy python3-sympy python3-matplotlib \
      python3-sklearn python3-requests python3-pil python3-sortedcontainers \
      swi-prolog-nox gcc libc6-dev \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/*.log /var/log/apt
