"""What the tests share: where the golden data and the programs are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import fast_pixel_cnn

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden"
PROGRAMS = ROOT / "target" / "release"


@pytest.fixture(scope="session")
def digits() -> fast_pixel_cnn.Model:
    """The bundled model of images, on the processor."""
    return fast_pixel_cnn.load(ROOT / "models" / "digits", device="cpu")


@pytest.fixture(scope="session")
def spoken() -> fast_pixel_cnn.Model:
    """The bundled model of sounds, on the processor."""
    return fast_pixel_cnn.load(ROOT / "models" / "spoken-digits", device="cpu")


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Runs one of the programs and gives the directory that it wrote to."""

    def run(name: str, *arguments: Any) -> Path:
        path = PROGRAMS / name
        if not path.exists():
            pytest.skip(f"{path} is not there: cargo build --release")
        command = [str(path), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (tmp_path / "stdout").write_text(done.stdout)
        return tmp_path

    return run


def read_safetensors(path: Path) -> dict[str, Any]:
    """The arrays of a safetensors file: a JSON header behind its length, then the values."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    values = data[8 + length :]
    types = {"F32": np.float32, "I64": np.int64}

    def array(entry: dict[str, Any]) -> Any:
        begin, end = entry["data_offsets"]
        return np.frombuffer(values[begin:end], types[entry["dtype"]]).reshape(entry["shape"])

    return {name: array(entry) for name, entry in header.items() if name != "__metadata__"}
