#!/usr/bin/env bash
# The demo: installs what is missing, starts a private PostgreSQL and Redis under target/demo, the
# gateway on 127.0.0.1:8080, plays an evening, and stays until Ctrl-C.
#   scripts/demo.sh          start
#   scripts/demo.sh clean    remove everything that it made
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/servers.sh
folder=${DEMO_FOLDER:-$PWD/target/demo}

if [ "${1:-}" = clean ]; then
  servers_remove "$folder"
  say "The demo's data are gone."
  exit 0
fi

servers_install
say "Building (some minutes the first time) ..."
cargo build --release --locked --quiet
intake=$PWD/target/release/intake

mkdir -p "$folder"
# A demo that still runs is ended first, and cleans up what is its own before anything is started.
if [ -e "$folder/demo.pid" ]; then
  pid=$(cat "$folder/demo.pid")
  if tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q 'scripts/demo\.sh'; then
    say "Ending the demo that still runs ..."
    kill -TERM "$pid" 2>/dev/null || true
    timeout 60 tail --pid="$pid" -f /dev/null || die "The demo that still runs (process $pid) does not end; stop it, then try again."
  fi
fi
printf '%s' "$$" > "$folder/demo.pid"
# A demo that was killed may have left its gateway behind.
if [ -e "$folder/intake.pid" ]; then
  pid=$(cat "$folder/intake.pid")
  if [ "$(readlink "/proc/$pid/exe" 2>/dev/null | sed 's/ (deleted)$//')" = "$intake" ]; then
    kill "$pid" 2>/dev/null || true
    tail --pid="$pid" -f /dev/null
  fi
  rm -f "$folder/intake.pid"
fi
rm -f "$folder/access.json"

given=; servers_given && given=1
gateway=
# shellcheck disable=SC2329 # called by the trap
stop() {
  trap '' INT TERM
  if [ -n "$gateway" ]; then kill -INT "$gateway" 2>/dev/null || true; wait "$gateway" 2>/dev/null || true; fi
  rm -f "$folder/intake.pid" "$folder/demo.pid"
  [ -n "$given" ] || servers_stop "$folder"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

servers_start "$folder"
export INTAKE_SPOOL__FOLDER=${INTAKE_SPOOL__FOLDER:-$folder/spool}
export INTAKE_MEDIA__FOLDER=${INTAKE_MEDIA__FOLDER:-$folder/media}
"$intake" demo --access "$folder/access.json" &
gateway=$!
printf '%s' "$gateway" > "$folder/intake.pid"
code=0
wait "$gateway" || code=$?
gateway=
exit "$code"
