"""Long calls: other threads run meanwhile, Ctrl-C ends them, progress is told, memory is counted before it is taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fast_pixel_cnn
from conftest import GOLDEN, ROOT
from fast_pixel_cnn.arrays import as_images

# More images than any machine makes in a minute.
ENDLESS = 1_000_000


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.sample(ENDLESS),
        lambda model: model.sample(ENDLESS, batch_size=1, method="naive"),
        lambda model: model.classify(np.zeros((20_000, 32, 32, 3), np.uint8)),
    ],
)
def test_ctrl_c_ends_a_call_and_the_model_still_works(digits, call):
    before = digits.sample(2)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call(digits)
    assert time.monotonic() - start < 30
    assert np.array_equal(digits.sample(2), before)


def test_an_exception_of_the_callable_ends_a_call(digits):
    def refuse(done, total):
        raise LookupError(f"{total} are too many")

    with pytest.raises(LookupError, match=f"{ENDLESS} are too many"):
        digits.sample(ENDLESS, progress=refuse)


def test_progress_grows_to_the_whole(digits):
    told = []
    digits.sample(24, batch_size=8, progress=lambda done, total: told.append((done, total)))
    done = [done for done, _ in told]
    assert done == sorted(done) and told[-1] == (24, 24) and {total for _, total in told} == {24}
    images = np.zeros((4, 8, 8, 3), np.uint8)
    told.clear()
    digits.log_prob(images, 1, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)


def test_progress_true_draws_a_bar_where_tqdm_is(digits, capsys, monkeypatch):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    digits.sample(2, progress=True)
    assert "2.0/2" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.warns(UserWarning, match="pip install tqdm"):
        digits.sample(1, progress=True)


def test_other_threads_run_while_images_are_made(digits):
    counted, ended = [0], threading.Event()

    def count():
        while not ended.is_set():
            counted[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    digits.sample(32)
    during = counted[0]
    ended.set()
    thread.join()
    assert during > 20


def test_threads_take_turns_with_a_model_and_two_models_run_at_once(digits):
    other = fast_pixel_cnn.load(ROOT / "models/digits", device="cpu", threads=1)
    expected = [digits.sample(3, seed=seed) for seed in range(6)]
    made = {}

    def make(seed):
        made[seed] = (digits if seed < 4 else other).sample(3, seed=seed)

    threads = [threading.Thread(target=make, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(made[seed], expected[seed]) for seed in range(6))


def test_what_has_no_room_is_refused_before_it_is_taken(digits):
    start = time.monotonic()
    with pytest.raises(MemoryError, match="MiB are available; a batch of [0-9]+ would fit"):
        digits.sample(10**9)
    with pytest.raises(MemoryError, match="a batch of 4 needs"):
        digits.sample(4, size=65536, batch_size=4)
    assert time.monotonic() - start < 10


def test_inputs_are_not_copied():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    assert as_images(images, "images") is images
    assert np.shares_memory(as_images(images[0], "images"), images)


def test_bytes_are_all_that_is_kept_of_images():
    program = f"""
import fast_pixel_cnn, resource
model = fast_pixel_cnn.load({str(GOLDEN / "tiny/v2/params.ckpt")!r}, device="cpu", threads=1)
model.sample(1000, size=8, batch_size=50)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = model.sample(20_000, size=8, batch_size=50)
print(made.nbytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("what a process took is counted in other units here")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    taken, grown = map(int, done.stdout.split())
    # As floats they would take four times as much.
    assert taken == 20_000 * 8 * 8 * 3 and grown < 2 * taken
