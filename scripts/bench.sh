#!/usr/bin/env bash
# The measurements, on private servers with fsync and synchronous_commit on. With BENCH=short so
# short that the figures mean nothing, to see that it works; with BENCH=long with ten times as much.
# Some 13 GB of disk are needed, half of it for the log of the server.
# PG_OPTIONS="-c commit_delay=2000 -c commit_siblings=0" makes each flush take 2 ms at least.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/servers.sh
. scripts/peers.sh
unset DATABASE_URL REDIS_URL
servers_install
peers_install
folder=$PWD/target/bench-servers
trap 'servers_remove "$folder"' EXIT
servers_remove "$folder"
if [ "${BENCH:-}" = short ]; then
  servers_start "$folder"
else
  # A quarter of the memory, as PostgreSQL's manual recommends for a server of its own; here the
  # gateway and the load share it.
  quarter=$(($(getconf _PHYS_PAGES) / 4 * $(getconf PAGE_SIZE) / 1048576))MB
  PG_OPTIONS="-c shared_buffers=$quarter -c min_wal_size=8GB -c max_wal_size=8GB ${PG_OPTIONS:-}" \
    servers_start "$folder"
  # As a server that has been at work for a day: the log's files are there and are used again, and
  # its memory was used before. A new one makes and zeroes 16 MB of log now and then, and everybody
  # waits for it.
  say "Warming the server up ..."
  "$(pg_bin)/psql" --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$DATABASE_URL" <<'SQL'
CREATE TABLE warm (filler text);
ALTER TABLE warm ALTER filler SET STORAGE PLAIN;
INSERT INTO warm SELECT repeat(md5(n::text), 120) FROM generate_series(1, 1000000) n;
TRUNCATE warm;
INSERT INTO warm SELECT repeat(md5(n::text), 120) FROM generate_series(1, 1000000) n;
DROP TABLE warm;
CHECKPOINT;
SQL
fi
export SQLX_OFFLINE=true
cargo bench --locked --quiet --bench gateway
