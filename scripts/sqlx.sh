#!/usr/bin/env bash
# The checked form of every query, for building without a database (.sqlx).
#   scripts/sqlx.sh write    makes it anew after a query or a migration has changed
#   scripts/sqlx.sh check    fails when it is not current
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/servers.sh
mode=${1:-check}
# Never on servers that somebody works with: databases are made and dropped here.
unset DATABASE_URL REDIS_URL
servers_install
folder=$PWD/target/test-servers
trap 'servers_stop "$folder"' EXIT
servers_start "$folder"
bin=$(pg_bin)
server=${DATABASE_URL%/*}
"$bin/psql" -q "$server/postgres" -c 'DROP DATABASE IF EXISTS intake_sqlx' -c 'CREATE DATABASE intake_sqlx'
for migration in migrations/*.sql; do
  "$bin/psql" -q -v ON_ERROR_STOP=1 -1 "$server/intake_sqlx" -f "$migration"
done
made=$PWD/target/sqlx-made
rm -rf "$made" && mkdir -p "$made"
touch src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR=$made DATABASE_URL=$server/intake_sqlx cargo check --locked --quiet --all-targets
"$bin/psql" -q "$server/postgres" -c 'DROP DATABASE intake_sqlx'
if [ "$mode" = write ]; then
  rm -rf .sqlx && mv "$made" .sqlx
  say ".sqlx holds $(ls .sqlx | wc -l) queries"
elif ! diff -rq "$made" .sqlx >&2; then
  die ".sqlx is not current: run \`make sqlx\` and commit it"
fi
