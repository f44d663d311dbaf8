#!/usr/bin/env bash
# The measurements, on private servers with fsync and synchronous_commit on. With BENCH=short so
# short that the figures mean nothing, to see that it works; with BENCH=long with ten times as much.
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
PG_OPTIONS="-c shared_buffers=1GB -c max_wal_size=8GB ${PG_OPTIONS:-}" servers_start "$folder"
export SQLX_OFFLINE=true
cargo bench --locked --quiet --bench gateway
