#!/usr/bin/env bash
# Brings the demo up once on other ports, sends one intake of each channel, looks at the queue page,
# takes the demo down, and checks that nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/servers.sh
export DEMO_FOLDER=$PWD/target/demo-check
unset DATABASE_URL REDIS_URL
export INTAKE_HTTP__LISTEN=127.0.0.1:$(free_port) INTAKE_OPS__LISTEN=127.0.0.1:$(free_port)
log=$PWD/target/demo-check.log
mkdir -p target
scripts/demo.sh clean 2>/dev/null

scripts/demo.sh > "$log" 2>&1 &
demo=$!
trap 'kill "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; cat "$log" >&2' EXIT
access=$DEMO_FOLDER/access.json
for _ in $(seq 9000); do
  [ -e "$access" ] && break
  kill -0 "$demo" 2>/dev/null || die "demo-check: the demo ended before it was ready"
  read -rt 0.1 <> <(:) || true
done
[ -e "$access" ] || die "demo-check: the demo was not ready in time"

intake=target/release/intake
number() { grep -o 'BCS-[0-9]*-[0-9]*' | head -1; }
wechat=$("$intake" simulate wechat --access "$access" --openid oDemoCheck000000000000000001 | number)
hotline=$("$intake" simulate hotline --access "$access" | number)
counter=$("$intake" simulate counter --access "$access" | number)
for one in "$wechat" "$hotline" "$counter"; do
  [ -n "$one" ] || die "demo-check: a channel gave no number"
  "$intake" simulate desk --access "$access" --expect "$one" >/dev/null
done
database=$(sed -n 's/.*"database_url": "\([^"]*\)".*/\1/p' "$access")
redis=$(sed -n 's/.*"redis_url": "\([^"]*\)".*/\1/p' "$access")
DATABASE_URL=$database REDIS_URL=$redis "$intake" verify

trap - EXIT
kill -INT "$demo" 2>/dev/null || true
kill -TERM "$demo" 2>/dev/null || true
wait "$demo" 2>/dev/null || true
left=
for process in /proc/[0-9]*; do
  if tr '\0' ' ' < "$process/cmdline" 2>/dev/null | grep -q -- "$DEMO_FOLDER/"; then left="$left ${process#/proc/}"; fi
done
[ -z "$left" ] || die "demo-check: still running: $left"
scripts/demo.sh clean 2>/dev/null
say "demo-check: $wechat, $hotline and $counter were in the queue; nothing is left running"
