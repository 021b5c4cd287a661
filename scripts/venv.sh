#!/bin/sh
# Makes $VENV with what requirements.txt pins. Does nothing where that is done: a copy
# of the file, left in $VENV after the last install, says what was installed.
set -eu

installed=$VENV/requirements.installed
oldest="3.11"

say() { echo "mien: $*" >&2; }

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && { echo "$PYTHON"; return; }
        say "PYTHON=$PYTHON is no Python of $oldest or newer."
        return 1
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        fits "$name" && { echo "$name"; return; }
    done
    say "No Python of $oldest or newer was found. Install one (python.org, or the"
    say "package manager of this machine), or name it: make PYTHON=/path/to/python3"
    return 1
}

# A virtual environment whose Python or pip does not run is none.
if ! { fits "$VENV/bin/python" && "$VENV/bin/python" -c 'import pip' 2>/dev/null; }; then
    python=$(find_python)
    say "making $VENV with $("$python" --version)"
    if ! "$python" -m venv --clear "$VENV"; then
        say "$python cannot make virtual environments. On Debian and Ubuntu install"
        say "the package python3-venv, then try again."
        exit 1
    fi
fi

if ! cmp -s requirements.txt "$installed"; then
    say "installing what requirements.txt pins; the first time takes some minutes"
    # An installation that ends half-way is none, whatever requirements.txt says then.
    rm -f "$installed"
    # Compiling it all takes longer than the rest, and most is never imported: Python
    # compiles what is.
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check -qq \
        --no-compile --requirement requirements.txt; then
        say "The installation failed; the lines above say why. Is this machine online?"
        exit 1
    fi
    cp requirements.txt "$installed"
fi
