"""The wheel's CUDA engine, on a GPU or on the virtual one that tools/test-cuda.sh leaves: near the processor's numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import fast_pixel_cnn
from conftest import GOLDEN, ROOT

VIRTUAL = ROOT / "target/vgpu"

PROGRAM = f"""
import threading
import numpy as np
import fast_pixel_cnn

path = {str(GOLDEN / "tiny/v2/params.ckpt")!r}
device, processor = (fast_pixel_cnn.load(path, device=name) for name in ("cuda", "cpu"))
assert device.device.startswith("cuda:0 ("), device.device
images = device.sample(3, size=4, floats=True)
assert np.abs(images - processor.sample(3, size=4, floats=True)).max() < 1e-4
assert np.array_equal(device.sample([2, 0], size=4, floats=True), images[[2, 0]])
given = processor.sample(2, size=8)
assert np.abs(device.logits(given) - processor.logits(given)).max() < 1e-4
assert np.allclose(device.log_prob(given), processor.log_prob(given), rtol=1e-5)
made = []
thread = threading.Thread(target=lambda: made.append(device.sample(1, size=4, floats=True)))
thread.start()
thread.join()
assert np.array_equal(made[0], images[:1])
narrow, on_processor = (fast_pixel_cnn.load(path, device=name, precision="bf16") for name in ("cuda", "cpu"))
assert narrow.device.endswith(", bf16)"), narrow.device
apart = np.abs(narrow.logits(given) - device.logits(given)).max()
assert np.abs(narrow.logits(given) - on_processor.logits(given)).max() < 1e-4 < apart
"""


def test_cuda_is_near_the_processor_from_any_thread():
    if not fast_pixel_cnn.BUILT_WITH_CUDA:
        pytest.skip("the wheel was built without nvcc")
    environment = dict(os.environ)
    if shutil.which("nvidia-smi") is None:
        if not VIRTUAL.exists():
            pytest.skip("there is no GPU and no virtual one: tools/test-cuda.sh builds it")
        environment["LD_LIBRARY_PATH"] = str(VIRTUAL)
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
