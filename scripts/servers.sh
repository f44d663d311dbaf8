# Private PostgreSQL and Redis for the demo, the tests and the measurements. Sourced, not run.
#
#   servers_install            installs what is missing, or says what to type
#   servers_start FOLDER       starts both with their data in FOLDER; exports DATABASE_URL, REDIS_URL
#   servers_stop FOLDER        stops both
#
# They listen on free ports of this machine, with random passwords; the machine's own servers are
# never touched. With DATABASE_URL and REDIS_URL set, those are used and nothing is started.

# What is built is looked for here, wherever cargo was told to put it.
export CARGO_TARGET_DIR=$PWD/target

# Inside a trap a bare `return` gives the status from before the trap: always say which.
say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

pg_bin() {
  local dir
  dir=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
  if [ -n "$dir" ] && [ -x "$dir/initdb" ]; then printf '%s' "$dir"; return 0; fi
  dir=$(command -v initdb) && dirname "$(readlink -f "$dir")"
}

# Installs Debian packages without letting their services start.
apt_install() {
  if ! command -v apt-get >/dev/null; then
    die "Please install $* with this system's package manager (names may differ), then try again."
  fi
  if [ "$(id -u)" != 0 ]; then
    die "Please type:  sudo apt-get install $*    and try again."
  fi
  say "Installing $* ..."
  local policy=/usr/sbin/policy-rc.d placed=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy" && placed=1
  fi
  local log; log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    [ -n "$placed" ] && rm -f "$policy"
    die "The installation of $* failed (above). Please install them by hand, then try again."
  fi
  rm -f "$log"
  if [ -n "$placed" ]; then rm -f "$policy"; fi
}

servers_given() { [ -n "${DATABASE_URL:-}" ] && [ -n "${REDIS_URL:-}" ]; }

servers_install() {
  if ! servers_given; then
    local missing=()
    [ -n "$(pg_bin)" ] || missing+=(postgresql)
    command -v redis-server >/dev/null || missing+=(redis-server)
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
  fi
  # The gateway's HTTP client trusts the machine's certificates.
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -d /etc/pki ] || apt_install ca-certificates
  # sqlx and ring need a C compiler and linker, as Rust itself does.
  command -v cc >/dev/null || apt_install gcc libc6-dev
}

# PostgreSQL refuses to run as root: then it runs as the user that its package made.
pg_user() { if [ "$(id -u)" = 0 ]; then id -un postgres 2>/dev/null || printf nobody; fi; }

as_pg() {
  local user; user=$(pg_user)
  if [ -n "$user" ]; then (cd / && exec runuser -u "$user" -- "$@"); else (cd / && exec "$@"); fi
}

free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then printf '%s' "$port"; return 0; fi
  done
}

password() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# Where PostgreSQL's files lie: in FOLDER, or, where its user cannot go there (root's home), in
# /var/tmp with a link in FOLDER.
pg_home() {
  local folder=$1 home user
  if [ -L "$folder/pg" ]; then readlink -f "$folder/pg"; return 0; fi
  user=$(pg_user)
  if [ -n "$user" ]; then
    mkdir -p "$folder/pg" && chown "$user" "$folder/pg" && chmod 700 "$folder/pg"
    if ! as_pg test -w "$folder/pg" 2>/dev/null; then
      rmdir "$folder/pg"
      home=$(mktemp -d /var/tmp/intake-pg-XXXXXXXX)
      chown "$user" "$home" && ln -s "$home" "$folder/pg"
    fi
  else
    mkdir -p "$folder/pg" && chmod 700 "$folder/pg"
  fi
  readlink -f "$folder/pg"
}

servers_start() {
  if servers_given; then say "Using DATABASE_URL and REDIS_URL as given."; return 0; fi
  local folder=$1 bin home secret port log
  mkdir -p "$folder"
  folder=$(cd "$folder" && pwd)
  servers_stop "$folder"
  bin=$(pg_bin)
  home=$(pg_home "$folder")
  log=$home/log
  if [ ! -e "$folder/secret" ]; then (umask 077; password > "$folder/secret"); fi
  secret=$(cat "$folder/secret")
  if [ ! -e "$home/ready" ]; then
    as_pg rm -rf "$home/data"
    printf '%s' "$secret" | as_pg sh -c "umask 077; cat > '$home/pw'"
    as_pg "$bin/initdb" -D "$home/data" -U intake -A scram-sha-256 --pwfile="$home/pw" \
      -E UTF8 --locale=C.UTF-8 >/dev/null || die "PostgreSQL's files could not be made in $home."
    as_pg rm -f "$home/pw"
    as_pg touch "$home/ready"
  fi
  local started=
  for _ in 1 2 3 4 5; do
    port=$(free_port)
    if as_pg "$bin/pg_ctl" -D "$home/data" -l "$log" -w -t 60 -s start -o \
      "-c listen_addresses=127.0.0.1 -p $port -c unix_socket_directories='' -c max_connections=200 -c shared_buffers=256MB -c max_wal_size=4GB -c fsync=on -c synchronous_commit=on ${PG_OPTIONS:-}" \
      >/dev/null 2>&1; then started=1; break; fi
  done
  [ -n "$started" ] || { as_pg tail -5 "$log" >&2; die "PostgreSQL did not start; its log is $log."; }
  export DATABASE_URL="postgres://intake:$secret@127.0.0.1:$port/postgres"

  mkdir -p "$folder/redis" && chmod 700 "$folder/redis"
  started=
  for _ in 1 2 3 4 5; do
    port=$(free_port)
    (umask 077; cat > "$folder/redis/redis.conf" <<CONF
bind 127.0.0.1
port $port
requirepass $secret
dir "$folder/redis"
pidfile "$folder/redis/redis.pid"
logfile "$folder/redis/log"
daemonize yes
maxmemory-policy noeviction
save ""
appendonly no
CONF
    )
    redis-server "$folder/redis/redis.conf" >/dev/null 2>&1
    for _ in $(seq 50); do
      if redis-cli -p "$port" -a "$secret" --no-auth-warning ping 2>/dev/null | grep -q PONG; then started=1; break 2; fi
      read -rt 0.1 <> <(:) || true
    done
  done
  [ -n "$started" ] || die "Redis did not start; its log is $folder/redis/log."
  export REDIS_URL="redis://:$secret@127.0.0.1:$port/0"
}

servers_stop() {
  local folder=$1 bin home pid
  [ -d "$folder" ] || return 0
  folder=$(cd "$folder" && pwd)
  if [ -e "$folder/pg" ]; then
    bin=$(pg_bin); home=$(readlink -f "$folder/pg")
    if [ -n "$bin" ] && as_pg test -e "$home/data/postmaster.pid"; then
      as_pg "$bin/pg_ctl" -D "$home/data" -m fast -w -s stop >/dev/null 2>&1 || true
    fi
  fi
  if [ -e "$folder/redis/redis.pid" ]; then
    pid=$(cat "$folder/redis/redis.pid" 2>/dev/null || true)
    # Only if it is still ours: numbers are given out again.
    if [ -n "$pid" ] && tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -q redis-server; then
      kill "$pid" 2>/dev/null || true
      for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || break
        read -rt 0.1 <> <(:) || true
      done
    fi
    rm -f "$folder/redis/redis.pid"
  fi
  return 0
}

servers_remove() {
  local folder=$1 home
  servers_stop "$folder"
  if [ -L "$folder/pg" ]; then home=$(readlink -f "$folder/pg"); rm -rf "$home"; fi
  rm -rf "$folder"
}
