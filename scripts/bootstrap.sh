#!/bin/sh
# Create or renew .venv from the lock, once; or say how to start the cockpit next time.
#
#   bootstrap.sh run    what the cockpit and the engine need
#   bootstrap.sh dev    that, and what the tests and checks need
#   bootstrap.sh link   put stonk-tui on the PATH where that is safe, and say how to start it
#
# A finished .venv carries a stamp: the checksum of what it was made from. A start that finds the
# right stamp does nothing more. While .venv is being made it carries a mark instead, so that one
# left behind by an interrupted installation is known and made anew.

set -u
cd "$(dirname "$0")/.." || exit 2
root=$(pwd -P)
venv=.venv
stamp=$venv/.stonk-tui-stamp
mark=$venv/.stonk-tui-unfinished

fail() {
    printf 'stonk-tui: %s\n' "$1" >&2
    exit 2
}

# Prints the path of the first supported Python; otherwise fails with one line that says what to do.
find_python() {
    # Where a person named one, no other is tried.
    candidates=${PYTHON:-"python3.13 python3.12 python3.11 python3"}
    unsupported=
    incomplete=
    for name in $candidates; do
        path=$(command -v "$name" 2>/dev/null) || continue
        version=$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.[0-9] | 3.10 | [012].*) unsupported="$path is Python $version" && continue ;;
        esac
        if ! "$path" -c 'import venv, ensurepip' 2>/dev/null; then
            [ -n "$incomplete" ] || incomplete="$path cannot make environments; install its venv package (Debian, Ubuntu: sudo apt install python$version-venv)"
            continue
        fi
        printf '%s\n' "$path"
        return 0
    done
    [ -z "$incomplete" ] || fail "$incomplete and run make again"
    [ -z "$unsupported" ] || fail "Python 3.11 or newer is needed, but $unsupported; install a newer one, or name it: make PYTHON=/path/to/python3"
    [ -z "${PYTHON:-}" ] || fail "$PYTHON is not a Python that runs; name another one, or leave PYTHON out"
    fail "Python 3.11 or newer is needed, and none was found; install it (Debian, Ubuntu: sudo apt install python3 python3-venv)"
}

install_packages() {
    # A terminal gets pip's own progress bars with their ETA; a log file gets failures only.
    quiet=--quiet
    [ -t 1 ] && quiet=--progress-bar=on
    python=$venv/bin/python
    # pip and setuptools come from the lock first, so that the project itself needs no second,
    # unlocked build environment.
    "$python" -m pip install $quiet --disable-pip-version-check --no-input \
        --constraint constraints.txt --upgrade pip setuptools </dev/null || return 1
    # (setuptools remarks at length on every editable installation; that it is one is meant.)
    PYTHONWARNINGS=ignore "$python" -m pip install $quiet --disable-pip-version-check --no-input \
        --constraint constraints.txt --no-build-isolation --editable "$1" </dev/null
}

bootstrap() {
    level=$1
    sum="$(cat pyproject.toml constraints.txt | cksum) $root"
    if [ -x $venv/bin/python ] && [ ! -e $mark ] && [ -f $stamp ]; then
        read -r found <$stamp
        [ "$found" = "dev $sum" ] && return 0
        [ "$found" = "$level $sum" ] && return 0
        # What was once made for the tests stays so when it is renewed.
        case $found in dev*) level=dev ;; esac
    fi

    # Two makes at once: the second waits for the first, then finds the work done.
    if [ -z "${STONK_BOOTSTRAP_LOCKED:-}" ] && command -v flock >/dev/null 2>&1; then
        flock --nonblock .venv.lock true || echo "waiting for another make to finish .venv"
        STONK_BOOTSTRAP_LOCKED=1 exec flock .venv.lock sh scripts/bootstrap.sh "$1"
    fi

    if [ -e $venv ] && [ ! -e $mark ] && [ ! -f $stamp ]; then
        fail "$root/$venv was not made by this Makefile; move it away and run make again"
    fi
    found_python=$(find_python) || exit 2
    if [ -e $mark ] || [ ! -x $venv/bin/python ] || [ "$(cut -d' ' -f4- $stamp 2>/dev/null)" != "$root" ]; then
        rm -rf $venv || fail "$root/$venv cannot be removed; check its owner"
        echo "[1/2] making .venv with $("$found_python" -V) ($found_python)"
        mkdir $venv && : >$mark || fail "$root cannot be written to; check its owner and the free space"
        "$found_python" -m venv $venv >$mark 2>&1 || {
            why=$(tail -n 1 $mark)
            fail "$found_python could not make $root/$venv (${why:-no reason given}); check the free space"
        }
    fi
    : >$mark
    target=.
    [ "$level" = dev ] && target='.[test,check]'
    echo "[2/2] installing the locked packages (minutes the first time, a few gigabytes with CUDA)"
    install_packages "$target" ||
        fail "packages could not be installed (pip's reason is above); check network, proxy and free space, then run make again"
    printf '%s\n' "$level $sum" >$stamp.new && mv $stamp.new $stamp && rm -f $mark ||
        fail "$root/$venv cannot be written to; check the free space"
    echo "ready: $root/$venv"
}

link() {
    program=$root/$venv/bin/stonk-tui
    directory=${HOME:-}/.local/bin
    name=$directory/stonk-tui
    case ":$PATH:" in *":$directory:"*) reachable=yes ;; *) reachable=no ;; esac
    if [ $reachable = yes ] && [ -d "$directory" ] && [ ! -e "$name" ] && [ ! -L "$name" ]; then
        ln -s "$program" "$name" 2>/dev/null
    fi
    if [ "$(readlink "$name" 2>/dev/null)" = "$program" ]; then
        if [ $reachable = yes ]; then
            echo "Next time: stonk-tui   (a link in $directory)"
        else
            echo "Next time: $name   (to type just stonk-tui, add to your shell's start-up file: export PATH=\"\$HOME/.local/bin:\$PATH\")"
        fi
        return 0
    fi
    echo "Next time: $program"
    if [ -e "$name" ] || [ -L "$name" ]; then
        echo "($name is something else and was left alone)"
    else
        echo "To type just stonk-tui: mkdir -p ~/.local/bin && ln -s '$program' ~/.local/bin/stonk-tui"
        [ $reachable = yes ] ||
            echo "and add to your shell's start-up file: export PATH=\"\$HOME/.local/bin:\$PATH\""
    fi
}

case ${1:-run} in
    run | dev) bootstrap "${1:-run}" ;;
    link) link ;;
    *) fail "unknown argument $1; use run, dev or link" ;;
esac
