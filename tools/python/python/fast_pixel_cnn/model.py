"""A model as people use it: loaded, sampled, completed, scored.

The idea: everything is an array of numpy's, and everything that can be left out has a default. What is wrong ends in a
ValueError with one line; a long call shows its progress, leaves other threads free, and stops at Ctrl-C.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Union

import numpy as np
import numpy.typing as npt

from . import _engine
from .arrays import (
    as_class,
    as_classes,
    as_codes,
    as_images,
    as_indices,
    as_state,
    brief,
    flag,
    is_one,
    number,
    path,
    real,
    text,
)
from .progress import Progress, shown

Indices = Union[int, range, Sequence[int], npt.NDArray[np.integer]]
Classes = Union[None, int, str, Sequence[int], npt.NDArray[np.integer]]


class Sounds(NamedTuple):
    """Sounds that a model made."""

    codes: npt.NDArray[np.int32]
    """Symbols of the model's mu-law, `[N, T]`."""
    waveform: npt.NDArray[np.float32]
    """Amplitudes in [-1, 1], `[N, T]`."""
    sample_rate: int
    """Samples of a second."""


class Classified(NamedTuple):
    """What images were taken for."""

    classes: npt.NDArray[np.int64]
    """The class under which each image is likeliest, `[N]`; -1 where a likelihood is not a number."""
    log_prob: npt.NDArray[np.float64]
    """Log-likelihood of each image under each class, in nats: `[N, K]`."""


def load(
    source: str | os.PathLike[str] | Mapping[str, Any],
    device: str = "auto",
    threads: int | None = None,
    precision: str = "f32",
    *,
    raw: bool = False,
    nonlinearity: str | None = None,
    scope: str | None = None,
    params: None | str | os.PathLike[str] = None,
) -> Model:
    """Loads a model.

    Args:
        source: a directory that `convert` or the trainer made; a checkpoint of TensorFlow (V1, V2) or PyTorch
            (`.pth`, safetensors), or the directory that it is in; or a dictionary of arrays or torch tensors under a
            checkpoint's names, such as `model.state_dict()`.
        device: "auto" (the first CUDA device if there is one, else the processor), "cpu", "cuda" or "cuda:N".
        threads: on the processor, at most one for each core; by default as many as there are.
        precision: "f32", or "bf16" for weights of half the bytes where every pixel reads them.
        raw: take a checkpoint's raw weights instead of the averaged ones.
        nonlinearity: "concat_elu", "elu" or "relu", where a checkpoint's shapes cannot tell.
        scope: where a checkpoint has several models, the scope or key of the one.
        params: a WaveNet's `wavenet_params.json`; by default the one beside the checkpoint.

    Raises:
        ValueError: for what is no model, or damaged, in one line.
        FileNotFoundError, OSError: for what cannot be read.
        RuntimeError: for a device that is not there or refuses.
    """
    choice: _engine.Choice = {
        "raw": flag("raw", raw),
        "nonlinearity": None if nonlinearity is None else text("nonlinearity", nonlinearity),
        "scope": None if scope is None else text("scope", scope),
        "params": None if params is None else path("params", params),
    }
    threads = None if threads is None else number("threads", threads)
    device, precision = text("device", device), text("precision", precision)
    given: str | list[tuple[str, npt.NDArray[np.float32]]]
    if isinstance(source, Mapping):
        given = as_state(source)
    else:
        given = path("source", source, "a path or a dictionary of arrays")
    engine = _engine.open(given, choice, device, threads, precision)
    for sentence in engine.warnings:
        warnings.warn(sentence, stacklevel=2)
    return Model(engine)


class Model:
    """A model that makes images or sounds; `load` gives one.

    What it makes follows from the weights, the seed, the index, the class and the temperature alone, bit for bit, on one
    kind of device: image 7 of seed 1 is the same whether it is made alone, among a thousand, on another machine of the
    cluster or by the program `generate`.

    Threads may share a model, and take turns then; two models in two threads run at once. While a call computes, other
    threads run; Ctrl-C stops it after the row of pixels that it is at, or after a batch of images that it scores.
    """

    def __init__(self, engine: _engine.Engine) -> None:
        self._engine = engine

    @property
    def config(self) -> dict[str, Any] | None:
        """The configuration, in the words of `model.json`: `nr_resnet`, `nr_filters`, `dilations` ..."""
        return None if self._engine.config is None else json.loads(self._engine.config)

    @property
    def device(self) -> str:
        """What it runs on: "cpu (avx512, 2 threads)"."""
        return self._engine.device

    @property
    def classes(self) -> int:
        """Classes of a class-conditional model, else 0."""
        return self._engine.classes

    @property
    def makes_sounds(self) -> bool:
        """Whether it makes sounds rather than images."""
        return self._engine.sounds

    @property
    def sample_rate(self) -> int | None:
        """Samples of a second, of a model of sounds."""
        return self._engine.sample_rate

    def __repr__(self) -> str:
        config = self.config or {}
        shown = (f"{name}={value!r}" for name, value in config.items() if name != "model")
        kind = "WaveNet" if self.makes_sounds else "PixelCNN++"
        return f"<fast_pixel_cnn.Model: {kind}({', '.join(shown)}) on {self.device}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Model holds an open device and is not copied: call fast_pixel_cnn.load in each process"
        )

    def sample(
        self,
        n: Indices,
        seed: int = 2702,
        classes: Classes = None,
        size: None | int | tuple[int, int] = None,
        temperature: float = 1.0,
        method: str = "cached",
        floats: bool = False,
        *,
        seconds: float | None = None,
        length: int | None = None,
        batch_size: int | None = None,
        progress: Progress = None,
    ) -> Any:
        """Makes images, or sounds.

        Args:
            n: how many, from index 0 on; or the indices of those wanted, in any order: `range(100, 200)`, `[3, 1]`.
            seed: of the random numbers, below 2**64.
            classes: of a class-conditional model: one class for all, one for each `[N]`, or "all" (the default), by
                which the image of index i has the class i modulo the number of classes.
            size: of images, `(height, width)` or one number for both, in multiples of 4; 32 by default.
            temperature: 1 for the model's own distribution; below 1 draws from its likelier parts.
            method: "cached", or "naive" for a full forward pass for each pixel: the same images, slowly.
            floats: images as they were drawn, float32 in [-1, 1], instead of bytes.
            seconds, length: of sounds, so many seconds (1 by default) or samples.
            batch_size: how many are made at a time; by default as many as are made fastest and fit into memory.
            progress: a callable that is given how many are done, a float, and how many there will be; or True for
                a bar, if tqdm is installed.

        Returns:
            uint8 (or float32) `[N, height, width, channels]`; of a model of sounds a `Sounds`.

        Raises:
            ValueError: for what does not fit the model.
            MemoryError: before anything is allocated, with the batch that would fit.
            KeyboardInterrupt: after the row that was being made.
        """
        order = self._order(n, seed, classes, temperature, method, batch_size)
        floats = flag("floats", floats)
        if self.makes_sounds:
            if size is not None or floats:
                raise ValueError("size and floats: only for images, and this model makes sounds")
            samples = self._length(seconds, length)
            with shown(progress, order["count"], "sounds") as told:
                return self._sounds(_engine.sample_sounds(self._engine, order, samples, None, told))
        self._no_length(seconds, length)
        with shown(progress, order["count"], "images") as told:
            return self._engine.sample(order, _size(size), None, floats, told)

    def complete(
        self,
        given: npt.ArrayLike,
        keep_rows: int | None = None,
        n: Indices | None = None,
        seed: int = 2702,
        classes: Classes = None,
        temperature: float = 1.0,
        method: str = "cached",
        floats: bool = False,
        *,
        seconds: float | None = None,
        length: int | None = None,
        batch_size: int | None = None,
        progress: Progress = None,
    ) -> Any:
        """Completes images whose upper rows are given, or goes on from sounds.

        Args:
            given: images uint8 `[N, height, width, channels]`, or one of them `[height, width, channels]` to be
                completed in `n` ways; of a model of sounds codes `[N, T]`, or of one `[T]`.
            keep_rows: rows of the images that stay, from the top.
            n: as in `sample`; by default as many as are given.
            seconds, length: of sounds, how much is made behind what is given.
            The rest is as in `sample`.

        Returns:
            As `sample`, with what was given.
        """
        floats = flag("floats", floats)
        if self.makes_sounds:
            if keep_rows is not None or floats:
                raise ValueError("keep_rows and floats: only for images, and this model makes sounds")
            prime = as_codes(given, "given")
            order = self._order(
                len(prime) if n is None else n, seed, classes, temperature, method, batch_size
            )
            samples = self._length(seconds, length)
            with shown(progress, order["count"], "sounds") as told:
                return self._sounds(_engine.sample_sounds(self._engine, order, samples, prime, told))
        self._no_length(seconds, length)
        if keep_rows is None:
            raise ValueError("keep_rows: say how many rows of the images stay")
        images = as_images(given, "given")
        order = self._order(len(images) if n is None else n, seed, classes, temperature, method, batch_size)
        begun: _engine.Begun = {"images": images, "rows": number("keep_rows", keep_rows)}
        size = (images.shape[1], images.shape[2])
        with shown(progress, order["count"], "images") as told:
            return self._engine.sample(order, size, begun, floats, told)

    def log_prob(
        self,
        given: npt.ArrayLike,
        classes: Classes = None,
        *,
        skip: int = 1,
        progress: Progress = None,
    ) -> npt.NDArray[np.float64]:
        """How likely images or sounds are under the model.

        Args:
            given: images uint8 `[N, height, width, channels]`, or codes `[N, T]` of sounds.
            classes: of a class-conditional model, one for all or one for each.
            skip: of sounds, samples that are not scored but given: 0 for all, the first as it is drawn.

        Returns:
            Log-likelihoods in nats, float64 `[N]`: bits per dimension are
            `-log_prob / (log(2) * height * width * channels)`. NaN where the logits are not finite.
        """
        if self.makes_sounds:
            codes = as_codes(given, "given")
            labels = self._classes(classes, range(len(codes)))
            with shown(progress, len(codes), "sounds") as told:
                return -_engine.nats_of_sounds(self._engine, codes, labels, number("skip", skip), told)
        if skip != 1:
            raise ValueError("skip: only for sounds, and this model makes images")
        images = as_images(given, "given")
        labels = self._classes(classes, range(len(images)))
        with shown(progress, len(images), "images") as told:
            return -self._engine.nats(images, labels, told)

    def logits(
        self, given: npt.ArrayLike, classes: Classes = None, *, progress: Progress = None
    ) -> npt.NDArray[np.float32]:
        """The network's outputs for images uint8 `[N, height, width, channels]`: float32
        `[N, height, width, logits]`, from which each pixel would be drawn. For codes `[N, T]` of sounds `[N, T, logits]`:
        at position p those of the sample after the first p + 1.
        """
        if self.makes_sounds:
            codes = as_codes(given, "given")
            labels = self._classes(classes, range(len(codes)))
            with shown(progress, len(codes), "sounds") as told:
                return _engine.logits_of_sounds(self._engine, codes, labels, told)
        images = as_images(given, "given")
        labels = self._classes(classes, range(len(images)))
        with shown(progress, len(images), "images") as told:
            return self._engine.logits(images, labels, told)

    def classify(self, images: npt.ArrayLike, *, progress: Progress = None) -> Classified:
        """In which class images uint8 `[N, height, width, channels]` are likeliest, for a class-conditional model:
        by a full forward pass for each class.
        """
        if self.makes_sounds:
            raise ValueError("model: it makes sounds, and only images are classified")
        checked = as_images(images, "images")
        with shown(progress, len(checked), "images") as told:
            log_prob = -self._engine.nats_by_class(checked, told)
        likeliest = np.argmax(np.nan_to_num(log_prob, nan=-np.inf), axis=1).astype(np.int64)
        likeliest[np.isnan(log_prob).any(axis=1)] = -1
        return Classified(likeliest, log_prob)

    def _order(
        self,
        n: Indices,
        seed: int,
        classes: Classes,
        temperature: float,
        method: str,
        batch_size: int | None,
    ) -> _engine.Order:
        indices = as_indices(n)
        labels: None | int | npt.NDArray[np.uint32] = None
        if isinstance(classes, str):
            # The engine's own default, which needs no list of them.
            self._check_all(classes)
        elif classes is not None:
            labels = as_class(classes) if is_one(classes) else as_classes(classes, len(indices))
        return {
            "count": len(indices),
            "first_index": indices.start if isinstance(indices, range) and len(indices) else 0,
            "indices": None if isinstance(indices, range) else indices,
            "seed": number("seed", seed, end=2**64),
            "classes": labels,
            "temperature": real("temperature", temperature),
            "method": text("method", method),
            "batch_size": None if batch_size is None else number("batch_size", batch_size),
        }

    def _classes(self, classes: Classes, indices: Any) -> npt.NDArray[np.uint32] | None:
        """A class for each, or none for an unconditional model; "all" is by index."""
        if isinstance(classes, str):
            self._check_all(classes)
            labels: npt.NDArray[np.uint32] = np.asarray(indices, dtype=np.uint32) % np.uint32(self.classes)
            return labels
        return as_classes(classes, len(indices))

    def _check_all(self, classes: str) -> None:
        if classes != "all":
            raise ValueError(f'classes: expected classes or "all", found {brief(classes)}')
        if self.classes == 0:
            raise ValueError("classes: the model is unconditional")

    def _no_length(self, seconds: float | None, length: int | None) -> None:
        if seconds is not None or length is not None:
            raise ValueError("seconds and length: only for sounds, and this model makes images")

    def _length(self, seconds: float | None, length: int | None) -> int:
        rate = self._engine.sample_rate or 1
        if seconds is not None and length is not None:
            raise ValueError("seconds and length: give one of them")
        if length is not None:
            return number("length", length, least=1)
        wanted = 1.0 if seconds is None else real("seconds", seconds)
        if not 0 < wanted * rate < 2**63:
            raise ValueError(f"seconds: expected a finite number above 0, found {brief(seconds)}")
        return max(1, round(wanted * rate))

    def _sounds(self, made: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]) -> Sounds:
        return Sounds(*made, self._engine.sample_rate or 0)


def _size(size: None | int | tuple[int, int]) -> tuple[int, int]:
    if size is None:
        return (32, 32)
    both: Any = (size, size) if is_one(size) and not isinstance(size, str) else size
    if not isinstance(both, (tuple, list, np.ndarray)) or len(both) != 2:
        raise ValueError(f"size: expected (height, width), found {brief(size)}")
    return (number("size", both[0]), number("size", both[1]))
