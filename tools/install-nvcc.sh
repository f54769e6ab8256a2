#!/usr/bin/env bash
# Puts nvcc into .cuda/, from NVIDIA's packages on PyPI: all that a build with `--features cuda` needs on a
# machine without a CUDA toolkit. CUDA_VERSION=13.0 chooses another release.
#
# The idea: the packages are unpacked beside the project, not installed into any Python; the folder appears
# whole or not at all.
set -euo pipefail
cd "$(dirname "$0")/.."

release=${CUDA_VERSION:-13.0}
if [ -x .cuda/bin/nvcc ]; then
    echo "nvcc is there already: .cuda/bin/nvcc ($(.cuda/bin/nvcc --version | sed -n 's/.*, V//p'))"
    exit 0
fi
command -v python3 >/dev/null || { echo "error: python3 is missing: it fetches the packages" >&2; exit 1; }
python3 -m pip --version >/dev/null 2>&1 || { echo "error: pip is missing: install python3-pip" >&2; exit 1; }

new=$(mktemp -d .cuda-XXXXXX)
trap 'rm -rf "$new"' EXIT
packages=()
for name in nvcc crt runtime cccl; do packages+=("nvidia-cuda-$name==$release.*"); done
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$new" \
    "${packages[@]}" "nvidia-nvvm==$release.*" "nvidia-nvtx>=13" 2>&1 | grep -v "running pip as the 'root' user" || true
toolkit=$(echo "$new"/nvidia/cu*)
[ -x "$toolkit/bin/nvcc" ] || { echo "error: the packages hold no nvcc: see pip's messages above" >&2; exit 1; }
rm -rf .cuda
mv "$toolkit" .cuda
echo "nvcc $(.cuda/bin/nvcc --version | sed -n 's/.*, V//p') is in .cuda/bin"
