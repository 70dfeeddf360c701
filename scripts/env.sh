# Where the repository is, who builds it, and how root is reached.
# Sourced by the other scripts; by itself it installs nothing and changes nothing.

script=$(realpath "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

say() { printf '%s\n' "$*"; }
# What comes next, and how long it took to get here.
step() { printf '\n[%4d s] %s\n' "$SECONDS" "$*"; }
die() {
  printf '%s: %s\n' "${script##*/}" "$*" >&2
  exit 1
}

# Starts the script again as root, before it has done anything; the arguments are the script's own.
become_root() {
  [ "$(id -u)" != 0 ] || return 0
  command -v sudo >/dev/null || die "this needs root and there is no sudo here: run it as root"
  if [ ! -t 0 ]; then
    sudo -n true 2>/dev/null || die "this needs root, sudo asks for a password and there is no terminal: run it as root"
  fi
  exec sudo -- "$script" "$@"
}

# Root must leave no root-owned build in somebody's checkout: its owner builds.
owner=$(stat -c %U "$root")
as_owner=()
if [ "$(id -u)" != 0 ]; then
  owner=$(id -un)
elif [ "$owner" = root ] || [ "$owner" = UNKNOWN ]; then
  owner=root
else
  as_owner=(runuser -u "$owner" --)
fi
owner_home=$(getent passwd "$owner" | cut -d: -f6)

# rustup puts cargo into ~/.cargo/bin, which neither sudo nor a non-login shell has in PATH.
owner_run() { "${as_owner[@]}" env HOME="$owner_home" PATH="$owner_home/.cargo/bin:$PATH" "$@"; }
cargo() { owner_run cargo "$@"; }

# What scripts/setup unpacks rather than installs, after what the machine has itself.
tools=${CARGO_TARGET_DIR:-$root/target}/tools
PATH=$PATH:$tools/usr/bin

# Hugepages of 2 MB: makes $1 of them free, where the machine lets us, and remembers in file $2 how many there were.
# Returns 1 where they can't be had; the appliance then runs on ordinary pages, at about half the speed.
hugepages=/sys/kernel/mm/hugepages/hugepages-2048kB
reserve_hugepages() {
  local want=$1 memory=$2 free before
  free=$(cat $hugepages/free_hugepages 2>/dev/null) || return 1
  [ "$free" -lt "$want" ] || return 0
  before=$(cat $hugepages/nr_hugepages)
  [ -e "$memory" ] || echo "$before" >"$memory"
  { echo $((before + want - free)) >$hugepages/nr_hugepages; } 2>/dev/null || true
  [ "$(cat $hugepages/free_hugepages)" -ge "$want" ] || { give_back_hugepages "$memory"; return 1; }
}
give_back_hugepages() {
  [ -e "$1" ] || return 0
  { cat "$1" >$hugepages/nr_hugepages; } 2>/dev/null || true
  rm -f "$1"
}
