"""Sounds: the numbers of the reference, and the bits of the programs."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fast_pixel_cnn
from conftest import GOLDEN, ROOT


def test_numbers_are_those_of_the_reference():
    place = GOLDEN / "wavenet_gc"
    model = fast_pixel_cnn.load(place / "model.ckpt-72000", device="cpu")
    codes, classes = np.load(place / "codes.npy"), np.load(place / "gc_ids.npy")
    # The reference's logits begin where a position reads no padding any more.
    expected = np.load(place / "logits.npy")
    logits = model.logits(codes, classes)
    assert logits.shape == (*codes.shape, expected.shape[2])
    first = codes.shape[1] - expected.shape[1]
    assert np.abs(logits[:, first:] - expected).max() <= 1e-4
    # From logits to likelihoods: softmax over the symbols, of all samples but the first.
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    scores = np.take_along_axis(exact[:, :-1], codes[:, 1:, None].astype(np.int64), 2).sum((1, 2))
    assert np.allclose(model.log_prob(codes, classes), scores, rtol=1e-9)


def test_bits_are_those_of_generate(spoken, program):
    flags = ["-n", 3, "--class", "all", "--seconds", 0.1, "--first-index", 2, "-s", 5, "--device", "cpu"]
    out = program("generate", "-c", ROOT / "models/spoken-digits", *flags, "-v", "out") / "out"
    sounds = spoken.sample(range(2, 5), seconds=0.1, seed=5)
    assert np.array_equal(sounds.codes, np.load(out / "codes.npy"))
    assert np.array_equal(sounds.waveform, np.load(out / "waveform.npy"))
    assert sounds.sample_rate == spoken.sample_rate == 8000
    assert np.array_equal(spoken.sample([4, 2], length=800, seed=5).codes, sounds.codes[[2, 0]])


def test_what_goes_on_from_a_sound_is_what_generate_makes_of_it(spoken, program, tmp_path):
    begun = spoken.sample(1, seconds=0.05, classes=3)
    from_file = tmp_path / "begun"
    flags = ["--class", 3, "--seconds", 0.05, "--device", "cpu", "-c", ROOT / "models/spoken-digits"]
    program("generate", *flags, "-n", 1, "--format", "wav-f32,npy", "-v", from_file)
    assert np.array_equal(np.load(from_file / "codes.npy"), begun.codes)
    out = (
        program("generate", *flags, "-n", 2, "--prime", from_file / "sounds/000000.wav", "-v", "out") / "out"
    )
    longer = spoken.complete(begun.codes[0], n=2, seconds=0.05, classes=3)
    assert np.array_equal(longer.codes, np.load(out / "codes.npy"))
    assert np.array_equal(longer.codes[:, :400], np.repeat(begun.codes, 2, axis=0))
    # One sample is enough to go on from, and each of several may have its own.
    assert spoken.complete(begun.codes[:, :1], length=3, classes=3).codes.shape == (1, 4)
    several = spoken.complete(np.stack([begun.codes[0], begun.codes[0][::-1]]), length=2, classes=3)
    assert np.array_equal(several.codes[:, :400], [begun.codes[0], begun.codes[0][::-1]])


def test_scores_are_those_of_evaluate(spoken, program, tmp_path):
    sounds = spoken.sample(2, seconds=0.1, classes=[1, 2])
    np.save(tmp_path / "codes.npy", sounds.codes)
    np.save(tmp_path / "labels.npy", np.array([1, 2]))
    flags = ["-c", ROOT / "models/spoken-digits", "--codes", "codes.npy", "--labels", "labels.npy", "--json"]
    for skip in (0, 1, 300):
        told = program("evaluate", *flags, "--skip", skip, "--device", "cpu") / "stdout"
        found = json.loads(told.read_text())["nats"]
        assert np.array_equal(-spoken.log_prob(sounds.codes, [1, 2], skip=skip), np.array(found))


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda model: model.sample(1, size=8), "size and floats: only for images"),
        (lambda model: model.sample(1, seconds=1, length=1), "seconds and length: give one of them"),
        (lambda model: model.sample(1, seconds=0), "seconds: expected a finite number above 0, found 0"),
        (lambda model: model.sample(1, seconds=1e300), "seconds: expected a finite number above 0, found 1e"),
        (lambda model: model.sample(1, seconds="1"), "seconds: expected a number, found '1'"),
        (lambda model: model.sample(1, length=0), "length: expected a whole number of at least 1, found 0"),
        (lambda model: model.log_prob([[0, 256]], 1), "given: expected 0 to 255, found 256"),
        (lambda model: model.log_prob([[0.5, 1]], 1), r"given: expected codes, whole numbers \[N, T\]"),
        (lambda model: model.log_prob([[1]], 1), "skip: expected less than the 1 samples of a sound"),
        (lambda model: model.logits(np.zeros((1, 0), int), 1), "given: expected sounds of at least 1 sample"),
        (
            lambda model: model.logits([[1], [2]], [1] * 9),
            "classes: expected one for each of 2 sounds, found 9",
        ),
        (lambda model: model.complete([[-1]]), "given: expected numbers from 0 to"),
        (lambda model: model.classify([[1]]), "model: it makes sounds"),
    ],
)
def test_what_does_not_fit_is_a_value_error_of_one_line(spoken, call, line):
    with pytest.raises(ValueError, match=line) as raised:
        call(spoken)
    assert "\n" not in str(raised.value)


def test_of_no_sounds_there_are_no_logits(spoken):
    assert spoken.logits(np.zeros((0, 3), int), 1).shape == (0, 3, 256)
