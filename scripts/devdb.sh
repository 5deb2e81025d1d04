#!/usr/bin/env bash
# The database the sqlx macros are checked against while developing: every migration applied, in order.
# Writes DATABASE_URL into .env (ignored by git), or with --print only prints it. Run it again after
# changing a migration.
set -euo pipefail
cd "$(dirname "$0")/.."

exec 9>.dev.lock; flock 9
url=$(scripts/pg.sh start .dev/pg 9>&-)  # the server must not inherit the lock
host=${url#*host=}
bin=$(scripts/pg.sh bin)
psql() { "$bin/psql" -qXv ON_ERROR_STOP=1 -o /dev/null -h "$host" -U postgres "$@"; }

fresh=everhold_dev_$$
psql -d postgres -c "CREATE DATABASE $fresh"
for service in app auth catalog scheduler audit billing; do
  for file in migrations/"$service"/*.sql; do
    [ -e "$file" ] || continue
    if ! psql -d "$fresh" -1 -f "$file"; then
      psql -d postgres -c "DROP DATABASE $fresh"
      echo "$file does not apply; the development database is unchanged" >&2
      exit 1
    fi
  done
done
psql -d postgres -c "SET client_min_messages = warning" -c "DROP DATABASE IF EXISTS everhold_dev WITH (FORCE)" -c "ALTER DATABASE $fresh RENAME TO everhold_dev" 
database_url="postgres://postgres@localhost/everhold_dev?host=$host"
if [ "${1:-}" = --print ]; then echo "$database_url"; else echo "DATABASE_URL=$database_url" >.env; fi
