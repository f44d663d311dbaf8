# What people would use instead of the gateway, for the measurements: pinned versions, in
# target/peers. Sourced, not run.
#
#   peers_install            installs each peer; where that cannot be, writes why to NAME.missing
#
# With BENCH=short nothing is fetched: what is not installed is left out.

peers_install() {
  local folder=$PWD/target/peers
  mkdir -p "$folder"
  peer python benches/peers/python/requirements.txt peer_python
  peer bullmq benches/peers/bullmq/package-lock.json peer_bullmq
}

# peer NAME PINS INSTALL: installs unless these very pins are installed.
peer() {
  local name=$1 pins=$2 install=$3 want why
  want=$(cksum < "$pins")
  [ "$(cat "$folder/$name/pins" 2>/dev/null)" != "$want" ] || { rm -f "$folder/$name.missing"; return 0; }
  if [ "${BENCH:-}" = short ]; then
    why="it is not installed; make bench installs it."
  else
    rm -rf "${folder:?}/$name"
    why=$("$install" "$folder/$name" "$pins" 2>"$folder/$name.log") || true
  fi
  if [ -z "$why" ]; then
    printf '%s' "$want" > "$folder/$name/pins"
    rm -f "$folder/$name.missing"
  else
    printf '%s' "$why" > "$folder/$name.missing"
  fi
}

# Each says on its output why it cannot be installed; nothing when it is.
peer_python() {
  command -v python3 >/dev/null || { printf 'python3 is not there.'; return 0; }
  python3 -m venv "$1" 1>&2 || { printf 'python3 cannot make a virtual environment (python3-venv).'; return 0; }
  timeout 300 "$1/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 15 \
    --only-binary :all: --no-deps --requirement "$2" 1>&2 ||
    printf 'pip could not fetch or install its packages (target/peers/python.log).'
}

peer_bullmq() {
  command -v node >/dev/null && command -v npm >/dev/null || { printf 'node and npm are not there.'; return 0; }
  mkdir -p "$1"
  cp benches/peers/bullmq/package.json benches/peers/bullmq/package-lock.json "$1"
  (cd "$1" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund --fetch-retries 1) 1>&2 ||
    printf 'npm could not fetch or install its packages (target/peers/bullmq.log).'
}
