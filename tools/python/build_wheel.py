"""Builds the wheel: maturin, with the CUDA engine where there is an nvcc.

The idea: `pip install ./tools/python` should give whoever has CUDA an engine that uses it, and whoever has not one
that works. So this asks for the feature where an nvcc stands in a place in which build.rs will look for it. A wheel
with it starts without a driver.
"""

import os
import shutil
from pathlib import Path

from maturin import *

# Below the root of the repository, and where toolkits are put; as in build.rs.
OWN = Path(__file__).resolve().parents[2] / ".cuda"
TOOLKITS = [OWN, "/usr/local/cuda", "/opt/cuda", "/usr/lib/nvidia-cuda-toolkit", "/usr/lib/cuda"]


def has_nvcc() -> bool:
    """Whether build.rs would find an nvcc."""
    if "NVCC" in os.environ:
        return True
    named = [os.environ[name] for name in ("CUDA_PATH", "CUDA_HOME") if name in os.environ]
    there = (Path(toolkit, "bin", "nvcc").is_file() for toolkit in named + TOOLKITS)
    return shutil.which("nvcc") is not None or any(there)


if has_nvcc():
    arguments = os.environ.get("MATURIN_PEP517_ARGS", "")
    os.environ["MATURIN_PEP517_ARGS"] = f"{arguments} --features cuda".strip()
