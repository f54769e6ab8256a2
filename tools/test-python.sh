#!/usr/bin/env bash
# Builds the Python package, installs it into a virtual environment of its own (target/python) and runs its tests.
#
# The idea: what is tested is the wheel that a user would install. Arguments go to pytest: `tools/test-python.sh -k sounds`.
# With EXTRAS="test" what needs PyTorch and Ray is left out, and pytest says so; by default they are installed.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v python3 >/dev/null || { echo "error: python3 is missing" >&2; exit 1; }
environment=target/python
if [ ! -x $environment/bin/pip ]; then
    python3 -m venv $environment || { echo "error: python3 -m venv failed: install python3-venv" >&2; exit 1; }
fi
pip="$environment/bin/pip --quiet --disable-pip-version-check"
$pip install "./tools/python[${EXTRAS:-test,ray,train}]"
$environment/bin/python -m ruff check tools/python
$environment/bin/python -m ruff format --check tools/python
# The programs, which the package is compared with; with examples, as the tests build them, so that nobody has to again.
cargo build --release --quiet --bins --examples
$environment/bin/python -m pytest -rs tools/python "$@"
