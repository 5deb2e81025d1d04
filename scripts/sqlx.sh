#!/usr/bin/env bash
# Lints the workspace while the sqlx macros check every query against a real database, and keeps .sqlx.
#   scripts/sqlx.sh           rewrites .sqlx
#   scripts/sqlx.sh --check   fails when .sqlx is not what the queries and migrations say
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$PWD/target/sqlx
rm -rf "$fresh"; mkdir -p "$fresh"
was_up=no; [ -e .dev/pg/data/postmaster.pid ] && was_up=yes
DATABASE_URL=$(scripts/devdb.sh --print)
trap '[ $was_up = yes ] || scripts/pg.sh stop .dev/pg' EXIT
# A macro runs only when its crate is compiled.
touch services/*/src/lib.rs crates/{pg,testkit,everhold}/src/*.rs
DATABASE_URL=$DATABASE_URL SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$fresh \
  cargo clippy --workspace --all-targets --locked -- -D warnings
if [ "${1:-}" = --check ]; then
  diff -rq .sqlx "$fresh" || { echo ".sqlx is stale: run scripts/sqlx.sh and commit it" >&2; exit 1; }
else
  rm -rf .sqlx; cp -r "$fresh" .sqlx
fi
