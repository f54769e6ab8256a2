"""The trainer: its network is the engine's, and a run can be killed at any time.

The engine is the other implementation here: what PyTorch computes is compared with what the engine makes of
the files that training writes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs PyTorch, which is not installed")

import fast_pixel_cnn
from fast_pixel_cnn.train import data, files, loop, model
from fast_pixel_cnn.train.__main__ import main
from fast_pixel_cnn.train.model import Config, Normed, PixelCNN, nats

GOLDEN = Path(__file__).resolve().parents[3] / "tests" / "golden"
VARIANTS = list(itertools.product([3, 1], [0, 4], ["concat_elu", "elu", "relu"]))
SMALL = ["--resnets", "1", "--filters", "8", "--mixtures", "2", "--batch", "8"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """PyTorch's threads wait for each other by spinning, which is slow where others want the cores too; and sums depend on
    how many there are, so that it is one before the first run is made."""
    torch.set_num_threads(1)


def some_images(channels: int, classes: int, count: int = 6) -> data.Images:
    """Smooth images, so that there is something to learn, with each byte's extremes among them."""
    rng = np.random.default_rng(5)
    slopes = rng.uniform(-30, 30, (count, 1, 1, channels))
    rows, columns = np.arange(8)[:, None, None], np.arange(12)[None, :, None]
    pixels = 128 + slopes * (rows - 4) + 9 * columns + rng.normal(0, 4, (count, 8, 12, channels))
    labels = rng.integers(0, classes, count) if classes else None
    return data.Images(np.clip(pixels, 0, 255).astype(np.uint8), labels)


def trained(config: Config, images: data.Images, steps: int = 12) -> PixelCNN:
    """A network after some steps."""
    torch.manual_seed(3)
    network = PixelCNN(config, dropout=0.2)
    x, classes = loop.batch_of(images, np.arange(len(images)), torch.device("cpu"))
    network.initialise(x, classes)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nats(x, network(x, classes)).mean().backward()
        optimiser.step()
    return network.eval()


@torch.no_grad()
def computed(network: PixelCNN, images: data.Images) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, H, W, L] and bits per dimension [N], by PyTorch."""
    x, classes = loop.batch_of(images, np.arange(len(images)), torch.device("cpu"))
    logits = network(x, classes)
    return logits.permute(0, 2, 3, 1).numpy(), nats(x, logits.double()).numpy() / (math.log(2) * x[0].numel())


@pytest.mark.filterwarnings("ignore:.*is taken")
@pytest.mark.parametrize(("channels", "classes", "nonlinearity"), VARIANTS)
def test_the_engine_computes_what_was_trained(tmp_path, channels, classes, nonlinearity):
    images = some_images(channels, classes)
    network = trained(Config(2, 12, 3, channels, classes, nonlinearity), images)
    expected, expected_bits = computed(network, images)
    files.save_weights(tmp_path, network)
    arrays = network.folded()
    for engine in [
        fast_pixel_cnn.load(tmp_path, threads=2),
        fast_pixel_cnn.load(arrays, threads=2, nonlinearity=nonlinearity),
    ]:
        assert engine.config["nonlinearity"] == nonlinearity
        off = np.abs(engine.logits(images.pixels, images.labels) - expected).max()
        bits = -engine.log_prob(images.pixels, images.labels) / (math.log(2) * images.pixels[0].size)
        off_bits = np.abs(bits - expected_bits).max()
        print(f"logits within {off:.1e}, bits per dimension within {off_bits:.1e}")
        assert off <= 1e-4
        assert off_bits <= 1e-5
    # A mistake would show: what one label or the sign of one weight changes is far above that.
    if classes:
        other = (images.labels + 1) % classes
        assert np.abs(engine.logits(images.pixels, other) - expected).max() > 1e-2


def test_no_pixel_is_read_before_it_is_made():
    images = some_images(3, 0, 1)
    network = trained(Config(1, 8, 2), images, 3)
    before, _ = computed(network, images)
    for row, column in [(0, 0), (3, 5), (7, 11), (4, 0)]:
        changed = data.Images(images.pixels.copy())
        changed.pixels[0, row, column] ^= 128
        after, _ = computed(network, changed)
        differs = np.abs(after - before)[0].max(axis=-1).ravel() > 0
        at = row * 12 + column
        assert not differs[: at + 1].any()
        assert at == 95 or differs[at + 1 :].any()


def test_the_likelihoods_of_all_values_sum_to_one():
    torch.manual_seed(1)
    every = torch.from_numpy((np.arange(256) - 127.5) / 127.5).float()
    logits = torch.randn(1, 12, 1, 1)
    gray = torch.exp(-nats(every.view(256, 1, 1, 1), logits.expand(256, -1, 1, 1)))
    assert gray.sum().item() == pytest.approx(1, abs=1e-4)
    # Whatever green and blue are: what is left is the mixture of red alone.
    rgb = torch.cat([logits[:, :4], logits[:, 4:12], torch.randn(1, 28, 1, 1)], dim=1)
    for red in (0, 100, 255):
        x = torch.stack([every[red].expand(256, 256), *torch.meshgrid(every, every, indexing="ij")], dim=-1)
        likelihoods = torch.exp(-nats(x.view(-1, 3, 1, 1), rgb.expand(256 * 256, -1, 1, 1)).double())
        assert likelihoods.sum().item() == pytest.approx(gray[red].item(), rel=1e-3)


def test_gradients_are_finite_where_a_value_is_impossible():
    logits = torch.full((1, 12, 1, 1), 30.0, requires_grad=True)
    for value in (-1.0, -0.5, 0.0, 1.0):
        scales = logits.clone()
        scales.data[:, 8:] = -50.0
        nats(torch.full((1, 1, 1, 1), value), scales).sum().backward()
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("nonlinearity", ["concat_elu", "relu"])
def test_initialised_outputs_have_mean_0_and_their_deviation(nonlinearity):
    images = some_images(3, 4, 30)
    torch.manual_seed(1)
    network = PixelCNN(Config(1, 8, 2, 3, 4, nonlinearity))
    x, classes = loop.batch_of(images, np.arange(30), torch.device("cpu"))
    network.eval().initialise(x, classes)
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, Normed):
            hook = lambda _, __, y, name=name: found.update(
                {name: torch.var_mean(y, [0, 2, 3], correction=0)}
            )
            module.register_forward_hook(hook)
    with torch.no_grad():
        network(x, classes)
    assert len(found) == 24 + 15 + 9 + 5 + 4
    for name, (variance, mean) in found.items():
        expected = 0.1 if name.endswith("conv_out.conv") else 1.0
        assert mean.abs().max() < 1e-3, name
        # A channel that is nearly constant (a relu's all zero) has nothing to be scaled by.
        assert (variance.sqrt() / expected - 1).abs().median() < 1e-2, name


def test_dropout_keeps_the_mean():
    torch.manual_seed(1)
    x = torch.ones(64, 64, 17)
    for probability in (0.05, 0.5, 0.9):
        y = model.dropped(x, probability)
        assert y.mean().item() == pytest.approx(1, abs=0.03)
        assert (y == 0).float().mean().item() == pytest.approx(probability, abs=0.01)
        assert len(y.unique()) == 2
    # Neighbours are dropped independently.
    kept = (model.dropped(x, 0.5).flatten() > 0).float()
    assert (kept[1:] * kept[:-1]).mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("model_name", ["torch_rgb", "torch_gray"])
@pytest.mark.parametrize(
    "file", ["zip.pth", "legacy.pth", "module_legacy.pth", "wrapped_parametrized.pth", "model.safetensors"]
)
def test_training_goes_on_from_files_of_pixel_cnn_pp(model_name, file):
    told = json.loads((GOLDEN / model_name / "config.json").read_text())
    config = Config(told["nr_resnet"], told["nr_filters"], told["nr_logistic_mix"], told["channels"])
    network = PixelCNN(config).eval()
    files.begin_from(GOLDEN / model_name / file, network)
    logits, _ = computed(network, data.Images(np.load(GOLDEN / model_name / "images_u8.npy")))
    assert np.abs(logits - np.load(GOLDEN / model_name / "logits.npy")).max() < 1e-4
    with pytest.raises(files.FileError, match="expected shape"):
        files.begin_from(
            GOLDEN / model_name / file, PixelCNN(Config(told["nr_resnet"], 10, 3, told["channels"]))
        )


def test_weights_survive_their_file(tmp_path):
    config = Config(1, 8, 2, 1, 4, "elu")
    network = trained(config, some_images(1, 4), 2)
    files.save_weights(tmp_path, network)
    again = PixelCNN(config).eval()
    files.begin_from(tmp_path, again)
    logits = [computed(each, some_images(1, 4))[0] for each in (network, again)]
    assert np.abs(logits[0] - logits[1]).max() < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "state"]
    assert not list((tmp_path / "state").iterdir())


# Runs, as people start them.


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "fast_pixel_cnn.train", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def train(*args: object) -> list[dict]:
    """Runs the trainer to its end, in this process; what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([str(argument) for argument in args]) == 0
    return [json.loads(line) for line in printed.getvalue().splitlines()]


def refused(*args: object) -> str:
    """The line in which the trainer says what is wrong."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            status = main([str(argument) for argument in args])
        except SystemExit as stopped:
            status = stopped.code
    assert status == 2
    last = printed.getvalue().splitlines()[-1]
    assert "error: " in last
    return last


def losses(run: Path) -> list[tuple]:
    """What a run's log says of its model, without times."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    kept = ("step", "epoch", "bits_per_dim", "held_out_bits_per_dim", "lr")
    return [tuple(line.get(key) for key in kept) for line in lines if "note" not in line]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("data") / "images.npz"
    images = some_images(1, 4, 100)
    np.savez(file, images=images.pixels, labels=images.labels)
    return file


CADENCE = ["--log-every", 2, "--eval-every", 6, "--save-every", 6, "--sample-every", 0, "--class-conditional"]


@pytest.fixture(scope="module")
def whole_run(source, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train("--data", source, "--out", run, *SMALL, *CADENCE, "--steps", 24, "--clip-norm", 1000)
    return run


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(source, whole_run, tmp_path, which):
    run = tmp_path / "stopped"
    options = ["--data", source, "--out", run, *SMALL, *CADENCE, "--clip-norm", 1000]
    # It has no last step, so that it is there when the signal comes.
    with subprocess.Popen(command(*options), stdout=subprocess.PIPE, text=True, env=environment()) as process:
        for line in process.stdout:
            if json.loads(line)["step"] >= 8:
                process.send_signal(which)
                break
        process.stdout.read()
        assert process.wait() == (-9 if which == signal.SIGKILL else 128 + which)
    stopped_at = torch.load(run / files.STATE, weights_only=True)["step"]
    assert stopped_at < 24, "it ran too far to be compared"
    # What was said is remembered: only where it lies and how far to go.
    train("--out", run, "--resume", "--steps", 24)
    assert losses(run) == losses(whole_run)
    names = (files.WEIGHTS, files.CONFIG)
    assert all((run / name).read_bytes() == (whole_run / name).read_bytes() for name in names)


def test_a_run_is_not_overwritten_and_options_of_another_model_are_refused(source, whole_run):
    found = refused("--data", source, "--out", whole_run, *SMALL)
    assert "holds a run already: go on with --resume" in found
    found = refused("--out", whole_run, "--resume", "--filters", 12)
    assert "holds a run of another model (nr_resnet 1 nr_filters 8" in found
    # One that is at its last step is done.
    assert train("--out", whole_run, "--resume") == []


def test_processes_train_together_as_one_does(source, tmp_path):
    options = [
        "--data",
        source,
        "--class-conditional",
        "--resnets",
        1,
        "--filters",
        8,
        "--mixtures",
        2,
        "--dropout",
        0,
        "--steps",
        6,
        "--log-every",
        1,
        "--eval-every",
        3,
        "--sample-every",
        0,
    ]
    train(*options, "--out", tmp_path / "one", "--batch", 8)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    several = [*launch, "-m", *command(*options, "--out", tmp_path / "two", "--batch", 4)[2:]]
    done = subprocess.run(
        several, check=False, capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 8
    for a, b in zip(one, two):
        assert a[0] == b[0]
        numbers = [(x, y) for x, y in zip(a[2:4], b[2:4]) if x is not None]
        assert all(x == pytest.approx(y, abs=2e-4) for x, y in numbers), (a, b)


def test_a_run_learns_and_is_sampled_by_the_engine(source, tmp_path):
    from PIL import Image

    run = tmp_path / "run"
    printed = train(
        "--data",
        source,
        "--out",
        run,
        "--class-conditional",
        *SMALL,
        "--steps",
        60,
        "--log-every",
        20,
        "--sample-every",
        30,
        "--samples",
        8,
        "--seed",
        5,
    )
    bits = [line["bits_per_dim"] for line in printed if "bits_per_dim" in line]
    assert len(bits) == 3
    assert bits[2] < bits[0] - 0.3
    assert not [line for line in printed if "note" in line]
    engine = fast_pixel_cnn.load(run / files.WEIGHTS)
    images = engine.sample(8, seed=5, size=(8, 12))
    grid = np.array(Image.open(run / "samples" / "0000060.png"))
    assert (run / "samples" / "0000030.png").exists()
    assert grid.shape == (2 * 8, 4 * 12)
    assert (grid[8:, 12:24] == images[5, :, :, 0]).all()
    # Held out is what the engine finds of the images that were not trained on, with the averaged weights.
    _, test = data.split(str(source), None, True, 5)
    held_out = next(line["held_out_bits_per_dim"] for line in printed if "held_out_bits_per_dim" in line)
    of_engine = -engine.log_prob(test.pixels, test.labels).mean() / (math.log(2) * 96)
    assert held_out == pytest.approx(of_engine, abs=1e-5)


def test_a_loss_that_is_no_number_ends_the_run_and_spoils_nothing(source, tmp_path):
    options = ["--data", source, *SMALL, "--log-every", 2, "--sample-every", 0, "--out", tmp_path]
    train(*options, "--steps", 3)
    before = (tmp_path / files.STATE).read_bytes()
    found = refused("--out", tmp_path, "--resume", "--steps", 20, "--lr", 1e30, "--save-every", 100)
    assert "the loss is " in found
    assert "a lower lr or a clip_norm may help; the last state is of step 3" in found
    assert (tmp_path / files.STATE).read_bytes() == before


def test_mixed_precision_and_compilation_train_too(source, tmp_path):
    options = [
        "--data",
        source,
        "--class-conditional",
        *SMALL,
        "--steps",
        4,
        "--log-every",
        4,
        "--sample-every",
        0,
    ]
    plain = train(*options, "--out", tmp_path / "plain")[0]["bits_per_dim"]
    mixed = train(*options, "--out", tmp_path / "amp", "--amp")[0]["bits_per_dim"]
    assert mixed == pytest.approx(plain, abs=0.1)
    assert mixed != plain


# Data.


def pictures(directory: Path, count: int, mode: str = "RGB", size: tuple[int, int] = (8, 12)) -> Path:
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(directory.name))
    for number in range(count):
        shape = size if mode == "L" else (*size, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(directory / f"{number:03}.png")
    return directory


def test_directories_of_pictures(tmp_path):
    pictures(tmp_path / "b", 2)
    pictures(tmp_path / "a" / "deep", 3)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "a" / "._000.png").write_text("what macOS keeps")
    images = data.load(str(tmp_path), labels=True)
    assert images.pixels.shape == (5, 8, 12, 3)
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.classes == 2
    assert data.load(str(tmp_path), labels=False).labels is None
    gray = pictures(tmp_path / "gray", 2, "L")
    assert data.load(str(gray), labels=False).pixels.shape == (2, 8, 12, 1)
    # Gray ones among others are as those.
    assert data.load(str(tmp_path), labels=False).pixels.shape == (7, 8, 12, 3)


def test_arrays_and_what_is_held_out(tmp_path):
    pixels = np.arange(50, dtype=np.uint8)[:, None, None] * np.ones((4, 8), np.uint8)
    np.save(tmp_path / "gray.npy", pixels)
    images, test = data.split(str(tmp_path / "gray.npy"), None, False, 1)
    assert (len(images), len(test)) == (48, 2)
    assert images.pixels.shape == (48, 4, 8, 1)
    together = np.concatenate([images.pixels[:, 0, 0, 0], test.pixels[:, 0, 0, 0]])
    assert sorted(together) == list(range(50))
    assert len(data.split(str(tmp_path / "gray.npy"), "10", False, 1)[1]) == 10
    images, test = data.split(str(tmp_path / "gray.npy"), str(tmp_path / "gray.npy"), False, 1)
    assert (len(images), len(test)) == (50, 50)


def test_what_is_wrong_with_data_is_one_line(tmp_path):
    empty, mixed, odd, broken = (tmp_path / name for name in ("empty", "mixed", "odd", "broken"))
    empty.mkdir()
    pictures(mixed / "a", 1)
    pictures(mixed / "b", 1, size=(12, 8))
    pictures(odd, 2, size=(9, 12))
    broken.mkdir()
    (broken / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    ok = np.zeros((20, 8, 8, 3), np.uint8)
    cases = {
        "floats.npy": (ok / 255.0, "expected images of bytes (uint8), found float64"),
        "planes.npy": (np.zeros((20, 8, 8, 2), np.uint8), "found [20, 8, 8, 2]"),
        "none.npy": (ok[:0], "no images"),
        "odd.npy": (
            np.zeros((5, 30, 32, 3), np.uint8),
            "images are 30x32, and sides must be multiples of 4: pad them to 32x32",
        ),
    }
    for name, (array, _) in cases.items():
        np.save(tmp_path / name, array)
    (tmp_path / "text.npy").write_text("text")
    np.savez(tmp_path / "few.npz", images=ok, labels=np.arange(19))
    np.savez(tmp_path / "floats.npz", images=ok, labels=np.ones(20))
    np.savez(tmp_path / "minus.npz", images=ok, labels=np.full(20, -1))
    np.savez(tmp_path / "other.npz", x=ok)
    np.savez(tmp_path / "bare.npz", images=ok)
    expected = [
        (empty, False, "empty: no PNG or JPEG files"),
        (empty, True, "empty: has no subdirectories, one for each class"),
        (mixed, True, "images of several sizes: "),
        (odd, False, "images are 9x12, and sides must be multiples of 4: pad them to 12x12"),
        (broken, False, "x.png: cannot be read as a picture"),
        (tmp_path / "nowhere", False, "nowhere: no such file or directory (nor cifar10 or mnist"),
        (tmp_path / "text.npy", False, "text.npy: cannot be read as .npy"),
        (tmp_path / "few.npz", True, "expected 20 labels, one for each image, found [19]"),
        (tmp_path / "floats.npz", True, "expected labels that are integers, found float64"),
        (tmp_path / "minus.npz", True, "expected labels from 0, found -1"),
        (tmp_path / "other.npz", False, "has no array named images, but x"),
        (
            tmp_path / "bare.npz",
            True,
            "bare.npz: has no classes: give a directory with a subdirectory for each",
        ),
        *[(tmp_path / name, False, line) for name, (_, line) in cases.items()],
    ]
    for path, labels, line in expected:
        with pytest.raises(data.DataError) as error:
            data.load(str(path), labels)
        assert line in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(data.DataError, match="cannot hold out 20 of 20 images"):
        data.split(str(tmp_path / "bare.npz"), "20", False, 1)
    assert "odd: images are 9x12" in refused("--data", odd, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_with_options_is_one_line(source, tmp_path):
    run = tmp_path / "run"
    assert "nothing to train on: give --data" in refused("--out", run)
    assert "holds no run yet" in refused("--out", run, "--resume")
    assert "expected a number above 0, found 0" in refused("--data", source, "--out", run, "--batch", 0)
    assert "from 0 and below 1, found 1" in refused("--data", source, "--out", run, "--dropout", 1)
    assert "95 images to train on, and a batch is 96" in refused(
        "--data", source, "--out", run, "--batch", 96
    )
    found = refused("--data", source, "--out", run, *SMALL, "--init", GOLDEN / "torch_rgb" / "zip.pth")
    assert "expected shape [8, 2, 2, 3], found [16, 4, 2, 3]" in found
    found = refused("--data", source, "--out", run, *SMALL, "--init", source)
    assert "images.npz: cannot be read as weights" in found
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert all(part in printed.getvalue() for part in ("--class-conditional", "state/latest.pt", "torchrun"))
