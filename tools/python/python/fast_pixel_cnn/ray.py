"""Ray: images of a series spread over the processes and machines of a cluster.

    import ray, fast_pixel_cnn.ray

    rows = ray.data.range(50_000).map_batches(
        fast_pixel_cnn.ray.Sampler,
        fn_constructor_args=["weights/cifar"],
        fn_constructor_kwargs={"seed": 1},
        batch_size=256,
        concurrency=8,
        num_cpus=2,                 # or num_gpus=1
    )
    rows.write_images("images", column="image")          # or rows.write_parquet("images")

The idea: an image follows from its index alone, so whatever maps over indices makes the same images, in whatever order,
on whatever machine, and again after a failure. What Ray does well is left to Ray; this is the function that it maps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from .arrays import as_class, as_classes, as_indices
from .model import Model, load

# The column of `ray.data.range`.
INDEX = "id"


class Sampler:
    """Makes the images or sounds of a batch's indices: a class for `Dataset.map_batches`, which loads the weights once
    for each actor.

    A batch has the column `id` with indices, as `ray.data.range` has it. What comes out has a row for each:

    - `index`;
    - `class`, of a class-conditional model;
    - `image`, uint8 `[height, width, 3]`, of gray images `[height, width]`; or of a model of sounds `codes`, int32 `[T]`,
      and `waveform`, float32 `[T]`.

    Args:
        source: what `fast_pixel_cnn.load` takes, at a path that every machine of the cluster has.
        seed, classes, size, temperature, seconds, length: as of `Model.sample`; `classes` is one class, or "all" (the
            default), by which the class of index i is i modulo the number of classes. A batch that has a column `class`
            says it itself.
        device: by default the GPU that Ray gives the actor, or else the processor.
        threads: on the processor, by default as many as the `num_cpus` that Ray gives the actor.
        precision, options: as of `fast_pixel_cnn.load`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Mapping[str, Any],
        seed: int = 2702,
        classes: int | str | None = None,
        size: int | tuple[int, int] | None = None,
        temperature: float = 1.0,
        *,
        seconds: float | None = None,
        length: int | None = None,
        device: str | None = None,
        threads: int | None = None,
        precision: str = "f32",
        **options: Any,
    ) -> None:
        given: dict[str, float] | None = None
        if ray.is_initialized():
            # In the process that drives Ray, where somebody tries this out, nothing is assigned.
            with suppress(AssertionError):
                given = ray.get_runtime_context().get_assigned_resources()
        if device is None:
            device = "cuda" if given and given.get("GPU", 0) > 0 else "cpu"
        if threads is None and device == "cpu" and given is not None:
            threads = max(1, int(given.get("CPU", 1)))
        self.model: Model = load(source, device, threads, precision, **options)
        if isinstance(classes, str):
            self.model._check_all(classes)
        self.classes = classes if classes is None or isinstance(classes, str) else as_class(classes)
        self.how: dict[str, Any] = {
            "seed": seed,
            "temperature": temperature,
            "size": size,
            "seconds": seconds,
            "length": length,
        }

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The rows of some indices."""
        if INDEX not in batch:
            raise ValueError(f"batch: expected a column {INDEX}, found {', '.join(map(str, batch))}")
        indices = as_indices(batch[INDEX])
        rows: dict[str, npt.NDArray[Any]] = {"index": np.asarray(indices, dtype=np.int64)}
        classes = batch.get("class", None if isinstance(self.classes, str) else self.classes)
        labels = as_classes(classes, len(indices))
        if self.model.classes:
            rows["class"] = rows["index"] % self.model.classes if labels is None else labels.astype(np.int64)
        made = self.model.sample(indices, classes=rows.get("class", labels), **self.how)
        if self.model.makes_sounds:
            rows.update(codes=made.codes, waveform=made.waveform)
        else:
            rows["image"] = made[..., 0] if made.shape[-1] == 1 else made
        return rows
