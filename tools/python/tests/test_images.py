"""Images: the numbers of the trainers' own code, and the bits of the programs."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fast_pixel_cnn
from conftest import GOLDEN, ROOT, read_safetensors

# A checkpoint of each trainer and kind of model, and what `load` has to be told of it.
GOLDEN_MODELS = [
    ("cond", "v2/params.ckpt", {}),
    ("tiny", "v1/params.ckpt", {}),
    ("relu", "v2/params.ckpt", {"nonlinearity": "relu"}),
    ("torch_rgb", "zip.pth", {}),
    ("torch_gray", "model.safetensors", {}),
]


def given(name: str):
    """The golden images of a model, and their classes."""
    labels = GOLDEN / name / "labels.npy"
    return np.load(GOLDEN / name / "images_u8.npy"), np.load(labels) if labels.exists() else None


@pytest.mark.parametrize(("name", "checkpoint", "options"), GOLDEN_MODELS)
def test_numbers_are_those_of_the_trainer(name, checkpoint, options):
    model = fast_pixel_cnn.load(GOLDEN / name / checkpoint, device="cpu", **options)
    images, labels = given(name)
    expected = np.load(GOLDEN / name / "logits.npy")
    logits = model.logits(images, labels)
    assert logits.dtype == np.float32 and logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= 1e-4
    log_prob = model.log_prob(images, labels)
    assert log_prob.dtype == np.float64 and log_prob.shape == (len(images),)
    assert np.allclose(-log_prob, np.load(GOLDEN / name / "nll.npy"), rtol=1e-5)


def test_a_dictionary_is_the_checkpoint_that_it_would_be():
    path = GOLDEN / "torch_rgb" / "model.safetensors"
    state = read_safetensors(path)
    images, _ = given("torch_rgb")
    expected = fast_pixel_cnn.load(path, device="cpu").logits(images)
    # Nested, in float64, beside what is no array of floats.
    nested = {"epoch": 3, "model": {name: array.astype(np.float64) for name, array in state.items()}}
    for form in (state, nested, {f"module.{name}": array for name, array in state.items()}):
        assert np.array_equal(fast_pixel_cnn.load(form, device="cpu").logits(images), expected)
    with pytest.raises(ValueError, match="u_init.conv.bias .* is missing"):
        fast_pixel_cnn.load({name: array for name, array in state.items() if name != "u_init.conv.bias"})


def test_tensors_of_torch_are_taken():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = GOLDEN / "torch_rgb" / "model.safetensors"
    state = {name: torch.tensor(array).requires_grad_() for name, array in read_safetensors(path).items()}
    images, _ = given("torch_rgb")
    expected = fast_pixel_cnn.load(path, device="cpu").logits(images)
    assert np.array_equal(fast_pixel_cnn.load(state, device="cpu").logits(images), expected)
    half = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    assert np.abs(fast_pixel_cnn.load(half, device="cpu").logits(images) - expected).max() < 0.5


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        (["-n", 12, "--class", "all"], {"n": 12}),
        (
            ["-n", 5, "--class", 3, "--first-index", 40, "-s", 9],
            {"n": range(40, 45), "classes": 3, "seed": 9},
        ),
        (["-n", 3, "-i", "8x12", "--temperature", 0.7], {"n": 3, "size": (8, 12), "temperature": 0.7}),
        (["-n", 2, "-i", 8, "--naive"], {"n": 2, "size": 8, "method": "naive"}),
    ],
)
def test_bits_are_those_of_generate(digits, program, flags, arguments):
    out = program("generate", "-c", ROOT / "models/digits", "--device", "cpu", *flags, "-v", "out") / "out"
    assert np.array_equal(digits.sample(**arguments), np.load(out / "images.npy"))
    assert np.array_equal(digits.sample(**arguments, floats=True), np.load(out / "samples.npy"))


def test_a_completion_is_that_of_generate(digits, program, tmp_path):
    pictures = digits.sample(3, classes=[7, 8, 9])
    np.save(tmp_path / "given.npy", pictures)
    flags = ["--complete", "given.npy", "--keep-rows", 14, "--class", 5, "-v", "out", "--device", "cpu"]
    out = program("generate", "-c", ROOT / "models/digits", *flags) / "out"
    completed = digits.complete(pictures, 14, classes=5)
    assert np.array_equal(completed, np.load(out / "images.npy"))
    assert np.array_equal(completed[:, :14], pictures[:, :14])
    # One picture in several ways, some of them.
    ways = digits.complete(pictures[0], 14, n=4, classes=5)
    assert np.array_equal(ways[0], completed[0]) and not np.array_equal(ways[1], ways[2])
    assert np.array_equal(digits.complete(pictures[0], 14, n=[3, 1], classes=5), ways[[3, 1]])


def test_scores_are_those_of_evaluate(digits, program, tmp_path):
    pictures = digits.sample(7, classes=[0, 1, 2, 3, 4, 5, 6])
    np.save(tmp_path / "images.npy", pictures)
    flags = ["-c", ROOT / "models/digits", "--images", "images.npy", "--device", "cpu", "--json"]
    found = json.loads((program("evaluate", *flags, "--classify") / "stdout").read_text())
    classified = digits.classify(pictures)
    assert np.array_equal(-classified.log_prob, np.array(found["nats"]))
    assert classified.classes.tolist() == found["classes"] == list(range(7))
    of_their_own = digits.log_prob(pictures, classes=range(7))
    assert np.array_equal(of_their_own, classified.log_prob[np.arange(7), np.arange(7)])


def test_an_image_follows_from_its_index_alone(digits):
    whole = digits.sample(20, seed=4)
    for indices in ([19, 3, 3, 0], range(5, 20, 7), np.array([8], dtype=np.int16), range(9, 3, -2)):
        assert np.array_equal(digits.sample(indices, seed=4), whole[list(indices)])
    for batch_size in (1, 7, 1000):
        assert np.array_equal(digits.sample(20, seed=4, batch_size=batch_size), whole)
    one_thread = fast_pixel_cnn.load(ROOT / "models/digits", device="cpu", threads=1)
    assert np.array_equal(one_thread.sample(20, seed=4), whole)
    assert not np.array_equal(digits.sample(20, seed=5), whole)


def test_views_are_read_as_they_lie(digits):
    pictures = digits.sample(4)
    turned = pictures[::-1, :, ::-1]
    assert not turned.flags.c_contiguous
    assert np.array_equal(digits.log_prob(turned, 1), digits.log_prob(turned.copy(), 1))
    read_only = pictures.copy()
    read_only.flags.writeable = False
    assert np.array_equal(digits.log_prob(read_only, 1), digits.log_prob(pictures, 1))


def lying(array: np.ndarray, how: str) -> np.ndarray:
    """The same numbers, as they may lie in memory."""
    if how == "field":
        # Strides that are no multiple of a number's bytes.
        records = np.zeros(array.shape, [("other", np.uint8), ("number", array.dtype)])
        records["number"] = array
        return records["number"]
    if how == "unaligned":
        copy = np.frombuffer(bytearray(array.nbytes + 1), np.uint8)[1:].view(array.dtype)
        copy[:] = array.ravel()
        return copy.reshape(array.shape)
    return array.astype(array.dtype.newbyteorder()) if how == "swapped" else array[::-1].copy()[::-1]


@pytest.mark.parametrize("how", ["field", "unaligned", "swapped", "backwards"])
def test_numbers_are_read_wherever_they_lie(digits, spoken, how):
    state = read_safetensors(GOLDEN / "torch_rgb/model.safetensors")
    state = {name: array for name, array in state.items() if array.ndim}
    expected = fast_pixel_cnn.load(state, device="cpu").sample(2, size=8)
    state = {name: lying(array, how) for name, array in state.items()}
    # What else a checkpoint may have.
    state = {"model": state, "optimizer": {"lr": 0.1, "betas": [[1], [1, 2]], "name": "adam", "step": None}}
    assert np.array_equal(fast_pixel_cnn.load(state, device="cpu").sample(2, size=8), expected)
    indices, classes = np.arange(3, dtype=np.uint32), np.array([7, 0, 3], np.uint32)
    expected = digits.sample(indices, classes=classes, size=8)
    assert np.array_equal(digits.sample(lying(indices, how), classes=lying(classes, how), size=8), expected)
    codes = spoken.sample(2, length=30, classes=1).codes
    assert np.array_equal(spoken.log_prob(lying(codes, how), 1), spoken.log_prob(codes, 1))


def test_a_model_tells_what_it_is(digits):
    assert digits.config == {
        "nr_resnet": 2,
        "nr_filters": 32,
        "nr_logistic_mix": 5,
        "num_classes": 10,
        "nonlinearity": "concat_elu",
    }
    assert (digits.classes, digits.makes_sounds, digits.sample_rate) == (10, False, None)
    assert digits.device.startswith("cpu (") and "nr_filters=32" in repr(digits)
    bf16 = fast_pixel_cnn.load(ROOT / "models/digits", "cpu", 1, "bf16")
    assert not np.array_equal(bf16.sample(2), digits.sample(2))
