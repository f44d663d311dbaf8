#!/usr/bin/env bash
# Every test, with a private PostgreSQL and Redis; arguments go to the test runner.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/servers.sh
. scripts/interop.sh
# Never on servers that somebody works with: databases are made and dropped here.
unset DATABASE_URL REDIS_URL
servers_install
# The desk is tested in a real browser.
missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
[ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
interop_install
folder=$PWD/target/test-servers
trap 'servers_stop "$folder"' EXIT
servers_remove "$folder"
servers_start "$folder"
export SQLX_OFFLINE=true
if command -v cargo-nextest >/dev/null; then
  cargo nextest run --workspace --locked "$@"
else
  cargo test --workspace --locked "$@"
fi
