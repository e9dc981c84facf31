# Sourced by the other scripts: an environment in .venv with everything in requirements.txt, made once and then reused.
# PYTHON chooses the interpreter that makes it (default python3; 3.10 or newer).
make_environment() {
    local python=${PYTHON:-python3} stamp=.venv/installed
    if cmp -s requirements.txt "$stamp" && .venv/bin/python -c 'import torch' 2>/dev/null; then return; fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        { echo "error: $python is missing or older than Python 3.10: set PYTHON=/path/to/python3.10 or newer" >&2; return 2; }
    echo "installing requirements.txt into .venv (torch alone takes a few minutes) ..." >&2
    [ -x .venv/bin/python ] || "$python" -m venv .venv || return 2
    .venv/bin/python -m pip --quiet --quiet install --disable-pip-version-check -r requirements.txt || return 2
    cp requirements.txt "$stamp"
}
