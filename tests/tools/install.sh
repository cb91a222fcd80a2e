#!/bin/sh
# Installs the clients and servers that others wrote, with exact versions, into folders beside this script that git
# ignores: node_modules (with a Node of its own, since the conformance suite needs 22) and venv. Does nothing where
# what is there is what the lock files say.
set -eu
cd "$(dirname "$0")"

missing=""
for program in node npm python3; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -n "$missing" ]; then
    echo "tests/tools/install.sh: missing:$missing. Install Node.js (with npm) and Python 3.10 or newer first." >&2
    exit 1
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "tests/tools/install.sh: python3 is $(python3 --version), but 3.10 or newer is needed." >&2
    exit 1
}

# The folder is rebuilt when the lock differs from the one that it was made from.
if ! cmp -s package-lock.json node_modules/.installed-lock; then
    npm ci --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed-lock
fi
if ! cmp -s requirements.txt venv/.installed-lock; then
    rm -rf venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt venv/.installed-lock
fi
