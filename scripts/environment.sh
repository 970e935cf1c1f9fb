# Sourced by the programs beside it: keeps .venv ready, or says in one message why not.
# POSIX shell, because macOS ships bash 3.2 and Debian's sh is dash.
#
#   PYTHON            the interpreter to use; otherwise the first on PATH that fits
#   MLX_RSFT_BACKEND  on Linux cpu (the default) or cuda13; kept until named anew
#
# .venv/made-for    folder, Python and backend it was made for; written last, so that
#                   a half-made or moved environment is made anew
# .venv.lock        held while one of the programs makes or changes .venv
# .venv/installed   one line per installed extra, with the checksum of pyproject.toml;
#                   absent while pip runs, so that a cut installation is taken up again

set -eu

# macOS has readlink -f since 12.3, and mlx needs a newer one.
self=$(readlink -f "$0")
scripts=$(dirname "$self")
# A program may lie in a folder below.
while [ ! -f "$scripts/environment.sh" ]; do
  [ "$scripts" != / ] || { echo "environment.sh is sourced by programs beside it." >&2; exit 2; }
  scripts=$(dirname "$scripts")
done
root=$(dirname "$scripts")
venv=$root/.venv
program=.${self#"$root"}

say() { printf '%s\n' "$*" >&2; }
fail() { say "$program: $*"; exit 2; }

# prepare [EXTRA...]: afterwards .venv holds the package, its backend and these extras.
prepare() {
  is_ready "$@" || make_ready "$@"
}

is_ready() {
  backend=$(chosen_backend) || exit
  fault=$(fault_of_venv)
  [ -z "$fault" ] && is_installed "$@"
}

make_ready() {
  require_writable "$root"
  take_turn
  if ! is_ready "$@"; then
    [ -z "$fault" ] || make_venv
    install "$@"
  fi
  rm -f "$venv.lock"
  trap - INT EXIT
}

# Waits until no other of these programs is at work on .venv. The lock is a link that
# names its holder's process, so that the lock of a dead one can be taken over.
take_turn() {
  waiting=
  vain=0
  until ln -s $$ "$venv.lock" 2>/dev/null; do
    if ! holder=$(readlink "$venv.lock"); then
      vain=$((vain + 1)) # let go at this moment, unless it is so again and again
      [ "$vain" -lt 9 ] || fail "$venv.lock cannot be made; is the disk full?"
    elif ! kill -0 "$holder" 2>/dev/null; then
      rm -f "$venv.lock"
    else
      [ -n "$waiting" ] || say "Waiting for process $holder, which prepares .venv ..."
      waiting=yes
      sleep 1
    fi
  done
  trap 'rm -f "$venv.lock"' EXIT
  trap 'say "Stopped while preparing .venv; $program goes on from there."; exit 130' INT
}

chosen_backend() {
  if [ "$(uname -s)" = Darwin ]; then
    echo metal
    return
  fi
  case ${MLX_RSFT_BACKEND:-} in
    '') backend_of_venv ;;
    cpu | cuda13) echo "$MLX_RSFT_BACKEND" ;;
    *) fail "MLX_RSFT_BACKEND is '$MLX_RSFT_BACKEND'; known on Linux: cpu, cuda13." ;;
  esac
}

backend_of_venv() {
  if [ -f "$venv/made-for" ]; then sed -n 3p "$venv/made-for"; else echo cpu; fi
}

# Prints why .venv cannot be used as it is; nothing when it can.
fault_of_venv() {
  if [ ! -e "$venv" ]; then
    echo "there is none yet"
  elif [ ! -f "$venv/made-for" ]; then
    echo "it is half-made, or these scripts did not make it"
  elif [ "$(sed -n 1p "$venv/made-for")" != "$root" ]; then
    echo "it was made in another folder"
  elif [ "$(sed -n 2p "$venv/made-for")" != "$(version_of "$venv/bin/python")" ]; then
    echo "its Python is gone or has changed"
  elif [ -n "${PYTHON:-}" ] &&
    [ "$(sed -n 2p "$venv/made-for")" != "$(version_of "$PYTHON")" ]; then
    echo "PYTHON names another version"
  elif [ "$(sed -n 3p "$venv/made-for")" != "$backend" ]; then
    echo "the backend changes to $backend"
  elif ! any_file "$venv"/lib/python3*/site-packages/pip/__main__.py; then
    echo "its pip is gone"
  fi
}

version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none
}

any_file() { [ -f "$1" ]; }

make_venv() {
  find_python
  say "Making .venv with Python $version ($python): $fault."
  rm -f "$venv/made-for"
  rm -rf "$venv"
  "$python" -m venv "$venv" ||
    fail "Python could not make $venv; the lines above say why."
  printf '%s\n' "$root" "$version" "$backend" >"$venv/made-for"
}

require_writable() {
  [ -w "$1" ] || fail "$1 cannot be written by $(id -un);" \
    "clone the repository into a folder of your own, or mend its owner."
}

# Sets python and version to the first interpreter that fits, or says what each lacks.
find_python() {
  if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
  else
    set -- python3 python3.13 python3.12 python3.11 python3.14
  fi
  found=
  for candidate in "$@"; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if answer=$("$candidate" "$scripts/python_fits.py" 2>/dev/null); then
      version=${answer%% *}
      python=${answer#* }
      return
    fi
    found="$found
  $candidate ${answer:-does not run}"
  done
  fail "a Python of 3.11 or newer with its venv module is needed. Found:${found:-
  none under the name(s) $*}
Install one (macOS: brew install python@3.13;" \
    "Debian, Ubuntu: sudo apt-get install python3 python3-venv),
or name yours: PYTHON=/path/to/python3.13 $program"
}

key() { cksum <"$root/pyproject.toml" | tr ' ' -; }

is_installed() {
  any_file "$venv"/lib/python3*/site-packages/mlx_rsft-*.dist-info/INSTALLER || return
  for extra in package "$@"; do
    grep -qxF "$(key) $extra" "$venv/installed" 2>/dev/null || return
  done
}

install() {
  require_writable "$venv"
  extras=$(IFS=,; echo "$*")
  [ "$backend" = metal ] || extras=$backend${extras:+,$extras}
  earlier=$(grep -F "$(key) " "$venv/installed" 2>/dev/null || :)
  rm -f "$venv/installed"
  forget_half_installed
  say "Installing mlx-rsft${extras:+[$extras]} into .venv ..."
  (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check \
    --editable ".${extras:+[$extras]}") >&2 ||
    fail "pip could not install; its lines above say why. Downloads are kept."
  {
    [ -z "$earlier" ] || echo "$earlier"
    for extra in package "$@"; do echo "$(key) $extra"; done
  } | sort -u >"$venv/installed"
}

# pip writes INSTALLER when a package is complete, and moves one it replaces to ~NAME.
# What an interruption left between the two must not count as installed.
forget_half_installed() {
  for info in "$venv"/lib/python3*/site-packages/*.dist-info; do
    [ -f "$info/INSTALLER" ] || rm -rf "$info"
  done
  rm -rf "$venv"/lib/python3*/site-packages/~*
}
