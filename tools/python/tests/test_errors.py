"""What does not fit ends in an exception of its kind, whose one line says what was expected and found."""

from __future__ import annotations

import numpy as np
import pytest

import fast_pixel_cnn
from conftest import GOLDEN, ROOT

ZEROS = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"n": 0}, "n: expected a whole number of at least 1, found 0"),
        ({"n": []}, "n: expected at least 1, found 0"),
        ({"n": range(0)}, "n: expected at least 1, found 0"),
        ({"n": -3}, "n: expected a whole number of at least 1, found -3"),
        ({"n": 2.5}, "n: expected a whole number of at least 1, found 2.5"),
        ({"n": True}, "n: expected a whole number of at least 1, found True"),
        ({"n": "many"}, "n: expected a whole number of at least 1, found 'many'"),
        ({"n": [0, -1]}, "indices: expected numbers from 0 to 4294967295, found -1"),
        ({"n": [0.5]}, r"indices: expected a number, a range or whole numbers \[N\], found float64 \[1\]"),
        (
            {"n": range(2**32 - 1, 2**32 + 1)},
            "indices: expected numbers from 0 to 4294967295, found 4294967296",
        ),
        ({"n": 1, "seed": -1}, "seed: expected a whole number of at least 0, found -1"),
        ({"n": range(2**70)}, "indices: expected numbers from 0 to 4294967295"),
        ({"n": range(0, 2**50, 2)}, "indices: expected numbers from 0 to 4294967295"),
        ({"n": 2**63}, "n: expected a whole number below 9223372036854775808"),
        ({"n": [[1], [2, 3]]}, "indices: expected a number, a range or whole numbers"),
        ({"n": 1, "seed": 2**64}, "seed: expected a whole number below 18446744073709551616"),
        ({"n": 1, "seed": True}, "seed: expected a whole number of at least 0, found True"),
        ({"n": 1, "seed": np.zeros((30, 3))}, r"seed: expected a whole number .*, found float64 \[30, 3\]"),
        ({"n": 1, "classes": 10}, "classes: expected classes 0 to 9, found 10"),
        ({"n": 1, "classes": -1}, "classes: expected a whole number of at least 0, found -1"),
        ({"n": 2, "classes": [1]}, "classes: expected one for each of 2 images, found 1"),
        ({"n": 1, "classes": "cats"}, 'classes: expected classes or "all", found .cats.'),
        ({"n": 1, "size": 30}, "size: expected height and width that are positive multiples of 4"),
        ({"n": 1, "size": (8, 8, 3)}, r"size: expected \(height, width\), found \(8, 8, 3\)"),
        ({"n": 1, "size": 8.0}, "size: expected a whole number of at least 0, found 8.0"),
        ({"n": 1, "size": {8: 1, 4: 2}}, "size: expected a whole number of at least 0, found {8: 1, 4: 2}"),
        ({"n": 1, "size": "x" * 999}, r"size: expected \(height, width\), found 'x{75} \.\.\.$"),
        ({"n": 1, "floats": "no"}, "floats: expected True or False, found 'no'"),
        ({"n": 1, "temperature": "hot"}, "temperature: expected a number, found 'hot'"),
        ({"n": 1, "temperature": 10**400}, "temperature: expected a number, found 1000"),
        ({"n": 1, "temperature": 0.0}, "temperature: expected a finite number above 0, found 0"),
        ({"n": 1, "method": "fast"}, 'method: expected cached or naive, found "fast"'),
        ({"n": 1, "method": None}, "method: expected a string, found None"),
        ({"n": 1, "batch_size": 0}, "batch_size: expected at least 1, found 0"),
        ({"n": 1, "seconds": 1}, "seconds and length: only for sounds"),
        ({"n": 1, "progress": 7}, "progress: expected a callable, True or None, found 7"),
    ],
)
def test_samples_that_cannot_be(digits, arguments, line):
    with pytest.raises(ValueError, match=line) as raised:
        digits.sample(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda model: model.log_prob(ZEROS.astype(float), 1),
            r"given: expected uint8 .*found float64 \[2, 8, 8, 3\]",
        ),
        (lambda model: model.log_prob(ZEROS[0, 0], 1), r"found uint8 \[8, 3\]"),
        (
            lambda model: model.log_prob(ZEROS[..., :2], 1),
            r"expected shape \[2, 8, 8, 3\], found \[2, 8, 8, 2\]",
        ),
        (lambda model: model.log_prob(ZEROS[:, :6], 1), "size: expected height and width"),
        (lambda model: model.log_prob(ZEROS), "classes: the model is conditional on 10 classes"),
        (lambda model: model.log_prob(ZEROS, [1, 2, 3]), "classes: expected one for each of 2 images"),
        (lambda model: model.complete(ZEROS, classes=1), "keep_rows: say how many rows"),
        (lambda model: model.complete(ZEROS, 9, classes=1), "rows"),
        (lambda model: model.complete(ZEROS, 4, classes=1, seconds=1), "seconds and length: only for sounds"),
        (lambda model: model.log_prob(ZEROS, 1, skip=0), "skip: only for sounds"),
        (lambda model: model.log_prob([[1], [2, 3]], 1), "given: expected uint8"),
        (lambda model: model.complete(ZEROS, 4, n=3, classes=1), r"expected shape \[3, 8, 8, 3\]"),
    ],
)
def test_images_that_do_not_fit(digits, call, line):
    with pytest.raises(ValueError, match=line):
        call(digits)


def test_an_unconditional_model_has_no_classes():
    model = fast_pixel_cnn.load(GOLDEN / "tiny/v2/params.ckpt", device="cpu")
    for call in (
        lambda: model.sample(1, classes=0),
        lambda: model.sample(1, classes="all"),
        lambda: model.log_prob(ZEROS, 0),
        lambda: model.classify(ZEROS),
    ):
        with pytest.raises(ValueError, match="unconditional"):
            call()


def test_weights_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        fast_pixel_cnn.load(tmp_path / "nothing")
    (tmp_path / "page.ckpt").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"page\.ckpt"):
        fast_pixel_cnn.load(str(tmp_path / "page.ckpt"))
    cut = (GOLDEN / "torch_rgb/model.safetensors").read_bytes()[:-100]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    with pytest.raises(ValueError, match=r"cut\.safetensors: length"):
        fast_pixel_cnn.load(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match="0 tensors of other names"):
        fast_pixel_cnn.load({})
    with pytest.raises(ValueError, match="source: expected a path or a dictionary of arrays, found 5"):
        fast_pixel_cnn.load(5)
    with pytest.raises(ValueError, match="a b: no such file"):
        fast_pixel_cnn.load("a\nb")
    digits = ROOT / "models/digits"
    for arguments, line in [
        ({"device": None}, "device: expected a string, found None"),
        ({"scope": 5}, "scope: expected a string, found 5"),
        ({"params": 5}, "params: expected a path, found 5"),
        ({"raw": 1}, "raw: expected True or False, found 1"),
        ({"device": "tpu"}, "device: expected auto, cpu, cuda or cuda:N"),
        ({"device": "cpu", "threads": 0}, "threads: expected 1 to"),
        ({"device": "cpu", "threads": -1}, "threads: expected a whole number"),
        ({"device": "cpu", "precision": "f16"}, 'precision: expected f32 or bf16, found "f16"'),
        ({"device": "cpu", "nonlinearity": "gelu"}, "nonlinearity: expected concat_elu, elu, relu"),
        ({"device": "cuda", "threads": 2}, "threads: only for the processor"),
    ]:
        with pytest.raises(ValueError, match=line):
            fast_pixel_cnn.load(digits, **arguments)


class Tensor:
    """A tensor that has no numbers."""

    def detach(self):
        raise NotImplementedError("no data")


def test_dictionaries_that_are_no_weights():
    around = {}
    around["model"] = around
    ones = np.ones(3, np.float32)
    for state, line in [
        (around, "source: expected arrays in at most 64 dictionaries"),
        ({"w": Tensor()}, r"source: 'w': NotImplementedError\('no data'\)"),
        ({"a.b": ones, "a": {"b": ones}}, "expected one of each name, found two named a.b"),
        ({"a\nb": ones, "\udcff": ones}, "2 tensors of other names: [?], a b"),
    ]:
        with pytest.raises(ValueError, match=line) as raised:
            fast_pixel_cnn.load(state)
        assert "\n" not in str(raised.value)


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(RuntimeError, match="cuda:77: cannot "):
        fast_pixel_cnn.load(ROOT / "models/digits", device="cuda:77")
