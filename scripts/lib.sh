# What the scripts here share; to be sourced, from the repository's root.

say() { printf '==> %s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

is_debian() { command -v apt-get >/dev/null && grep -qsE '^ID="?(debian|ubuntu)"?$' /etc/os-release; }

# We install what is missing, as root of a Debian or an Ubuntu only.
may_install() { [ "$(id -u)" = 0 ] && is_debian; }

# The packages are installed: of those named, the ones that this release has.
install_packages() {
  local package available=()
  quietly apt-get update
  for package in "$@"; do
    if [ -n "$(apt-cache madison "$package")" ]; then available+=("$package"); fi
  done
  say "Installing with apt-get: ${available[*]}"
  quietly env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    apt-get install --yes --no-install-recommends "${available[@]}"
}

# The command's output is shown only if it fails.
quietly() {
  local output
  output=$("$@" 2>&1 </dev/null) || fail "\`$*\` failed:" "$output"
}

# The command succeeds within SECONDS: `within 60 docker info`.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}
