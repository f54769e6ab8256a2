#!/usr/bin/env bash
# Puts the oldest and the newest assembler of PTX that PyPI has into .ptxas/, for the test that the kernels are taken
# by old drivers and for new devices: a driver's compiler is ptxas.
set -euo pipefail
cd "$(dirname "$0")/.."

new=
trap 'rm -rf "$new"' EXIT
for package in "nvidia-cuda-nvcc-cu11==11.7.99" "nvidia-cuda-nvcc>=13"; do
    version=${package##*=}
    if compgen -G ".ptxas/$version.*/ptxas" >/dev/null || [ -x ".ptxas/$version/ptxas" ]; then continue; fi
    new=$(mktemp -d .ptxas-XXXXXX)
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --target "$new" "$package"
    ptxas=$(echo "$new"/nvidia/cu*/bin/ptxas)
    version=$("$ptxas" --version | sed -n 's/.*, V//p')
    mkdir -p ".ptxas/$version"
    mv "$ptxas" ".ptxas/$version/ptxas"
    rm -rf "$new"
done
for ptxas in .ptxas/*/ptxas; do echo "ptxas $(basename "$(dirname "$ptxas")") is $ptxas"; done
