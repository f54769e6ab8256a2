"""A real Ray on this machine: the images are the local ones however they are spread, and also when a worker dies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from conftest import GOLDEN, ROOT

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("ray.data", reason="ray[data] is not installed")

from fast_pixel_cnn.ray import Sampler

COUNT = 64
DIGITS = str(ROOT / "models/digits")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two workers at once, and room for the tasks that read: with less these would wait for ever."""
    # The workers import this file too.
    environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def rows(sampler, dataset=None, batch_size=8, concurrency=2, **options):
    """What a sampler makes of a series, in the order of its indices."""
    dataset = ray.data.range(COUNT, override_num_blocks=COUNT // batch_size) if dataset is None else dataset
    made = dataset.map_batches(
        sampler,
        fn_constructor_args=[DIGITS],
        fn_constructor_kwargs={"seed": 5, **options},
        batch_size=batch_size,
        concurrency=concurrency,
        num_cpus=1,
    )
    return sorted(made.take_all(), key=lambda row: row["index"])


@pytest.fixture(scope="module")
def expected():
    import fast_pixel_cnn

    return fast_pixel_cnn.load(DIGITS, device="cpu").sample(COUNT, seed=5)


class Mortal(Sampler):
    """A sampler whose process dies once, in the midst of the work."""

    def __init__(self, source, marker, **options):
        super().__init__(source, **options)
        self.marker = Path(marker)

    def __call__(self, batch):
        if batch["id"][0] >= COUNT // 2:
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os._exit(1)
        return super().__call__(batch)


@pytest.mark.parametrize(("batch_size", "concurrency"), [(8, 2), (16, 1)])
def test_images_are_the_local_ones_however_they_are_split(expected, batch_size, concurrency):
    made = rows(Sampler, batch_size=batch_size, concurrency=concurrency)
    assert [row["index"] for row in made] == list(range(COUNT))
    assert [row["class"] for row in made] == [index % 10 for index in range(COUNT)]
    assert np.array_equal(np.stack([row["image"] for row in made]), expected)


def test_a_worker_that_dies_changes_nothing(expected, tmp_path):
    marker = tmp_path / "died"
    made = rows(Mortal, marker=str(marker))
    assert marker.exists()
    assert [row["index"] for row in made] == list(range(COUNT))
    assert np.array_equal(np.stack([row["image"] for row in made]), expected)


def test_what_is_missing_is_made_with_classes_of_its_own():
    import fast_pixel_cnn

    missing = ray.data.from_items([{"id": index, "class": (index * 7) % 10} for index in (40, 3, 17)])
    made = rows(Sampler, dataset=missing)
    alone = fast_pixel_cnn.load(DIGITS, device="cpu").sample([3, 17, 40], seed=5, classes=[1, 9, 0])
    assert np.array_equal(np.stack([row["image"] for row in made]), alone)


def test_ray_s_own_writers_write_it(expected, tmp_path):
    from PIL import Image

    dataset = ray.data.range(6).map_batches(
        Sampler, fn_constructor_args=[DIGITS], fn_constructor_kwargs={"seed": 5}, concurrency=1, num_cpus=1
    )
    dataset.write_images(str(tmp_path / "pictures"), column="image")
    pictures = [np.asarray(Image.open(file)) for file in (tmp_path / "pictures").iterdir()]
    assert sorted(picture.tobytes() for picture in pictures) == sorted(
        image.tobytes() for image in expected[:6]
    )
    dataset.write_parquet(str(tmp_path / "rows"))
    read = sorted(ray.data.read_parquet(str(tmp_path / "rows")).take_all(), key=lambda row: row["index"])
    assert np.array_equal(np.stack([row["image"] for row in read]), expected[:6])


def test_gray_images_and_sounds_are_rows_too():
    import fast_pixel_cnn

    def first(path, **options):
        made = ray.data.range(2).map_batches(
            Sampler, fn_constructor_args=[str(path)], fn_constructor_kwargs=options, concurrency=1, num_cpus=1
        )
        return sorted(made.take_all(), key=lambda row: row["index"])

    gray = GOLDEN / "torch_gray/zip.pth"
    alone = fast_pixel_cnn.load(gray, device="cpu").sample(2, size=8)
    assert np.array_equal([row["image"] for row in first(gray, size=8)], alone[..., 0])
    spoken = ROOT / "models/spoken-digits"
    alone = fast_pixel_cnn.load(spoken, device="cpu").sample(2, length=50)
    made = first(spoken, length=50)
    assert np.array_equal([row["codes"] for row in made], alone.codes)
    assert np.array_equal([row["waveform"] for row in made], alone.waveform)


def test_what_does_not_fit_is_a_value_error_of_one_line():
    one = {"id": np.array([1])}
    for options, batch, line in [
        ({"classes": "cats"}, one, 'classes: expected classes or "all", found .cats.'),
        # By which class an image is made must not follow from its place in a batch.
        ({"classes": [1, 2]}, one, "classes: expected a whole number"),
        ({"seconds": 1}, one, "seconds and length: only for sounds"),
        ({}, {"index": np.array([1])}, "batch: expected a column id, found index"),
        ({}, {**one, "class": np.array([1.5])}, r"classes: expected a class, or one for each \[N\]"),
    ]:
        with pytest.raises(ValueError, match=line):
            Sampler(DIGITS, device="cpu", threads=1, **options)(batch)
