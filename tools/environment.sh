# Sourced by the commands beside it: makes a virtual environment in the checkout if there is none, installs aiscache into it.
# usage: use_environment [EXTRA [DIRECTORY]]

use_environment() {
    local extra="${1:-}" venv="${2:-.venv}" stamp
    cd "$(dirname "${BASH_SOURCE[0]}")/.." || return 1
    if [ ! -x "$venv/bin/python" ]; then
        "${PYTHON:-python3}" -m venv "$venv" || {
            echo "error: '${PYTHON:-python3} -m venv' failed; Python 3.10 or newer with the venv module is needed" >&2
            return 1
        }
    fi
    stamp="$venv/installed${extra:+-$extra}"
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ tools/constraints.txt -nt "$stamp" ]; then
        echo "Installing aiscache into $venv (once) ..." >&2
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            -c tools/constraints.txt -e ".${extra:+[$extra]}" || return 1
        touch "$stamp"
    fi
    # As an installed package is. Where PYTHONDONTWRITEBYTECODE is set, each of the many processes that tests and benchmarks
    # start would compile it all again, which takes longer than to import it.
    "$venv/bin/python" -m compileall -q aiscache tests tools
}
