"""Long calls: other threads run meanwhile, Ctrl-C ends them, progress is told, memory is counted before it is taken."""

from __future__ import annotations

import os
import pickle
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
    # A shell has its background jobs ignore it, and Python then leaves that as it is.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt(digits, call)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert np.array_equal(digits.sample(2), before)


def interrupt(digits, call):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call(digits)
    assert time.monotonic() - start < 30


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


def test_a_callable_may_use_the_model_itself(digits):
    inner = []
    digits.sample(8, progress=lambda done, total: inner.append(digits.sample(1)) if not inner else None)
    assert np.array_equal(inner[0], digits.sample(1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_makes_the_same_or_says_that_it_cannot():
    program = f"""
import fast_pixel_cnn, os, threading, time
model = fast_pixel_cnn.load({str(ROOT / "models/digits")!r}, device="cpu")
expected = model.sample(2).tobytes()

def child():
    if os.fork() == 0:
        try:
            print(model.sample(2).tobytes() == expected, flush=True)
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()

child()
threading.Thread(target=model.sample, args=(100_000,), daemon=True).start()
time.sleep(0.3)
child()
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    idle, busy = done.stdout.splitlines()
    assert idle == "True" and busy.startswith("the model: cannot be used in this process: it was forked")


def test_a_model_says_that_it_is_not_copied(digits):
    with pytest.raises(TypeError, match="call fast_pixel_cnn.load in each process"):
        pickle.dumps(digits)


def test_a_limit_of_addresses_counts():
    program = f"""
import fast_pixel_cnn, numpy as np, resource
digits = fast_pixel_cnn.load({str(ROOT / "models/digits")!r}, device="cpu")
spoken = fast_pixel_cnn.load({str(ROOT / "models/spoken-digits")!r}, device="cpu")
images = np.broadcast_to(np.zeros((1, 32, 32, 3), np.uint8), (50_000, 32, 32, 3))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (150 << 20), size + (150 << 20)))
for call in (
    lambda: digits.sample(200_000),
    lambda: digits.sample(20_000, floats=True),
    lambda: digits.logits(images, 1),
    lambda: digits.complete(images, 4),
    lambda: spoken.sample(1, length=10**8),
    lambda: spoken.complete([1, 2, 3], length=10**8),
    lambda: fast_pixel_cnn.load({{"w": np.broadcast_to(np.float32(1), 10**8)}}),
):
    try:
        call()
    except MemoryError as error:
        print(error)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("what a process may have is told in other ways here")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 7 and done.stdout.count("MiB are available") == 7


def test_what_has_no_room_is_refused_before_it_is_taken(digits):
    start = time.monotonic()
    with pytest.raises(MemoryError, match="MiB are available; a batch of [0-9]+ would fit"):
        digits.sample(10**9)
    with pytest.raises(MemoryError):
        digits.sample(2**32, classes=3)
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
