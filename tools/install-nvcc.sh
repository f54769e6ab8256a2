#!/usr/bin/env bash
# Puts nvcc into .cuda/, from NVIDIA's packages on PyPI: all that a build with `--features cuda` needs on a
# machine without a CUDA toolkit. CUDA_VERSION=13.4 chooses another release, from 13.0 on.
#
# The idea: the package `cuda-toolkit` knows which versions of its parts belong together. They are unpacked beside the
# project, not installed into any Python; the directory appears whole or not at all.
set -euo pipefail
cd "$(dirname "$0")/.."

release=${CUDA_VERSION:-13.0}
if [ -x .cuda/bin/nvcc ]; then
    found=$(.cuda/bin/nvcc --version | sed -n 's/.*, V//p')
    if [ -z "${CUDA_VERSION:-}" ] || [[ $found. == "$release".* ]]; then
        echo "nvcc is there already: .cuda/bin/nvcc ($found)"
        exit 0
    fi
fi
command -v python3 >/dev/null || { echo "error: python3 is missing: it fetches the packages" >&2; exit 1; }
python3 -m pip --version >/dev/null 2>&1 || { echo "error: pip is missing: install python3-pip" >&2; exit 1; }

new=$(mktemp -d .cuda-XXXXXX)
trap 'rm -rf "$new"' EXIT
if ! python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$new" \
    "cuda-toolkit[nvcc,crt,nvvm,cudart,cccl,nvtx]==$release.*"; then
    echo "error: there is no nvcc $release to be had: see pip's messages above" >&2
    exit 1
fi
toolkit=$(echo "$new"/nvidia/cu*)
[ -x "$toolkit/bin/nvcc" ] || { echo "error: the packages of $release hold no nvcc" >&2; exit 1; }
rm -rf .cuda
mv "$toolkit" .cuda
echo "nvcc $(.cuda/bin/nvcc --version | sed -n 's/.*, V//p') is in .cuda/bin"
