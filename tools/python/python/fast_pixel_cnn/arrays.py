"""What callers give, as the arrays that the engine takes.

The idea: forms are seen to here (a list, another type of whole numbers, a tensor on a GPU), and what cannot be meant is a
ValueError that says what was expected and found. An array that is right already is not copied.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def number(name: str, value: Any, least: int = 0) -> int:
    """A whole number that is not negative."""
    try:
        found = operator.index(value)
    except TypeError:
        found = least - 1
    if isinstance(value, bool) or not least <= found < 2**63:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    return found


def found_as(array: npt.NDArray[Any]) -> str:
    """What an array is, for a message."""
    return f"{array.dtype} {list(array.shape)}"


def whole(given: Any, name: str, axes: int, expected: str, largest: int) -> npt.NDArray[Any]:
    """An array of whole numbers from 0 to `largest`, with so many axes."""
    array = np.asarray(given)
    if array.ndim != axes or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"{name}: expected {expected}, found {found_as(array)}")
    if array.size and not (0 <= array.min() and array.max() <= largest):
        outside = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name}: expected numbers from 0 to {largest}, found {outside}")
    return array


def as_indices(n: Any) -> range | npt.NDArray[np.uint32]:
    """Indices of a series: a range of consecutive ones, or an array."""
    if isinstance(n, range) and n.step == 1 and n.start >= 0:
        return n
    if np.ndim(n) == 0 and not isinstance(n, range):
        return range(number("n", n, least=1))
    given = np.arange(n.start, n.stop, n.step) if isinstance(n, range) else n
    array = whole(given, "indices", 1, "a number, a range or whole numbers [N]", 2**32 - 1)
    return np.ascontiguousarray(array, dtype=np.uint32)


def as_classes(classes: Any, count: int) -> npt.NDArray[np.uint32] | None:
    """A class for each of `count`."""
    if classes is None:
        return None
    given = np.full(count, number("classes", classes)) if np.ndim(classes) == 0 else classes
    array = whole(given, "classes", 1, "a class, or one for each [N]", 2**32 - 1)
    return np.ascontiguousarray(array, dtype=np.uint32)


def as_images(given: Any, name: str) -> npt.NDArray[np.uint8]:
    """Images `[N, height, width, channels]`, one `[height, width, channels]` as a series of one."""
    array = np.asarray(given)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(f"{name}: expected uint8 [N, height, width, channels], found {found_as(array)}")
    return array if array.ndim == 4 else array[np.newaxis]


def as_codes(given: Any, name: str) -> npt.NDArray[np.int32]:
    """Codes of sounds `[N, T]`, of one `[T]` as a series of one."""
    array = np.asarray(given)
    array = array[np.newaxis] if array.ndim == 1 else array
    array = whole(array, name, 2, "codes, whole numbers [N, T]", 2**31 - 1)
    if array.shape[1] == 0:
        raise ValueError(f"{name}: expected sounds of at least 1 sample, found {found_as(array)}")
    return np.asarray(array, dtype=np.int32)


def as_state(source: Mapping[str, Any], before: str = "") -> list[tuple[str, npt.NDArray[np.float32]]]:
    """The arrays of floats of a dictionary, and of dictionaries in it, by their dotted names."""
    arrays: list[tuple[str, npt.NDArray[np.float32]]] = []
    for key, value in source.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            arrays += as_state(value, f"{name}.")
            continue
        if hasattr(value, "detach"):
            # A tensor of torch's, wherever it is; bfloat16 is none of numpy's types.
            value = value.detach().to("cpu")
            value = (value.float() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
        if np.issubdtype(array.dtype, np.floating):
            arrays.append((name, np.asarray(array, dtype=np.float32)))
    return arrays
