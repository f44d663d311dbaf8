#!/usr/bin/env bash
# Brings the demo up once on other ports, sends one intake of each channel, looks at the queue page,
# takes the demo down with Ctrl-C, and checks that nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/servers.sh
export DEMO_FOLDER=$PWD/target/demo-check
unset DATABASE_URL REDIS_URL
export INTAKE_HTTP__LISTEN=127.0.0.1:$(free_port) INTAKE_OPS__LISTEN=127.0.0.1:$(free_port)
log=$PWD/target/demo-check.log
mkdir -p target
scripts/demo.sh clean 2>/dev/null

# A process group of its own, as a terminal gives it, so that Ctrl-C can be sent to all of it.
set -m
scripts/demo.sh > "$log" 2>&1 &
demo=$!
set +m
trap 'kill -TERM -- "-$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; cat "$log" >&2' EXIT
# Gone, or only its number is left because nobody asked for its end yet.
ended() { ! grep -q '^State:[[:space:]]*[^Z]' "/proc/$1/status" 2>/dev/null; }
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
calls=()
caller=13800001000
for kind in freeswitch asterisk tccc; do
  caller=$((caller + 1))
  calls+=("$("$intake" simulate hotline --access "$access" --as "$kind" --caller "$caller" | number)")
done
for one in "$wechat" "$hotline" "$counter" "${calls[@]}"; do
  [ -n "$one" ] || die "demo-check: a channel gave no number"
  "$intake" simulate desk --access "$access" --expect "$one" >/dev/null
done
database=$(sed -n 's/.*"database_url": "\([^"]*\)".*/\1/p' "$access")
redis=$(sed -n 's/.*"redis_url": "\([^"]*\)".*/\1/p' "$access")
DATABASE_URL=$database REDIS_URL=$redis "$intake" verify

# By number: Redis changes its title, PostgreSQL may run from elsewhere.
declare -A started=(
  [demo]=$demo
  [gateway]=$(cat "$DEMO_FOLDER/intake.pid")
  [redis]=$(cat "$DEMO_FOLDER/redis/redis.pid")
  [postgres]=$(as_pg head -1 "$(pg_home "$DEMO_FOLDER")/data/postmaster.pid")
)
for name in "${!started[@]}"; do
  ended "${started[$name]}" && die "demo-check: $name is not running, or its number is not known"
done

kill -INT -- "-$demo"
for _ in $(seq 600); do
  ended "$demo" && break
  read -rt 0.1 <> <(:) || true
done
ended "$demo" || die "demo-check: the demo did not end within a minute of Ctrl-C"
code=0
wait "$demo" || code=$?
[ "$code" = 130 ] || die "demo-check: the demo ended with $code instead of 130, as after Ctrl-C"
for name in "${!started[@]}"; do
  ended "${started[$name]}" || die "demo-check: $name is still running: ${started[$name]}"
done
trap - EXIT
scripts/demo.sh clean 2>/dev/null
say "demo-check: $wechat, $hotline, $counter and the calls ${calls[*]} were in the queue; nothing is left running"
