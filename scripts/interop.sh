# Other people's implementations of WeChat's protocol, for the tests: pinned versions, in
# target/interop. Sourced, not run. Without them the tests fail: they are no option.

interop_install() {
  local folder=$PWD/target/interop
  mkdir -p "$folder"
  interop_pinned python tests/interop/requirements.txt interop_python
  interop_pinned npm tests/interop/package-lock.json interop_npm
}

# interop_pinned NAME PINS INSTALL: installs unless these very pins are installed.
interop_pinned() {
  local name=$1 pins=$2 install=$3 want
  want=$(cksum < "$pins")
  [ "$(cat "$folder/$name/pins" 2>/dev/null)" != "$want" ] || return 0
  say "installing $name packages that the tests speak with"
  rm -rf "${folder:?}/$name"
  "$install" "$folder/$name" "$pins" >"$folder/$name.log" 2>&1 ||
    die "they could not be installed: see target/interop/$name.log"
  printf '%s' "$want" > "$folder/$name/pins"
}

interop_python() {
  python3 -m venv "$1" || { apt_install python3-venv && python3 -m venv "$1"; }
  "$1/bin/pip" install --quiet --disable-pip-version-check --retries 5 --no-deps --requirement "$2"
}

interop_npm() {
  command -v npm >/dev/null || apt_install nodejs npm
  mkdir -p "$1"
  cp tests/interop/package.json tests/interop/package-lock.json "$1"
  (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --fetch-retries 5)
}
