"""What callers give, as the arrays that the engine takes.

The idea: forms are seen to here (a list, another type of whole numbers, a tensor on a GPU), and what cannot be meant is a
ValueError that says what was expected and found. An array that is right already is not copied.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# Dictionaries in one another, of a checkpoint.
DEEPEST = 64


def brief(value: Any) -> str:
    """A value in one short line, for a message."""
    if hasattr(value, "dtype") and hasattr(value, "shape") and len(value.shape):
        return found_as(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:76] + " ..."


def number(name: str, value: Any, least: int = 0, end: int = 2**63) -> int:
    """A whole number from `least` to `end` - 1."""
    try:
        found = operator.index(value)
    except TypeError:
        found = least - 1
    if isinstance(value, bool) or found < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, found {brief(value)}")
    if found >= end:
        raise ValueError(f"{name}: expected a whole number below {end}, found {brief(value)}")
    return found


def real(name: str, value: Any) -> float:
    """A number."""
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name}: expected a number, found {brief(value)}")


def text(name: str, value: Any) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise ValueError(f"{name}: expected a string, found {brief(value)}")


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{name}: expected True or False, found {brief(value)}")


def path(name: str, value: Any, expected: str = "a path") -> str:
    """The path of a file or directory."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise ValueError(f"{name}: expected {expected}, found {brief(value)}") from None


def found_as(array: Any) -> str:
    """What an array is, for a message."""
    return f"{array.dtype} {list(array.shape)}"


def as_array(given: Any, name: str, expected: str) -> npt.NDArray[Any]:
    """An array of whatever numpy takes for one."""
    try:
        return np.asarray(given)
    except (TypeError, ValueError):
        # Ragged lists, or a tensor that is not on the processor.
        raise ValueError(f"{name}: expected {expected}, found {brief(given)}") from None


def whole(given: Any, name: str, axes: int, expected: str, largest: int) -> npt.NDArray[Any]:
    """An array of whole numbers from 0 to `largest`, with so many axes."""
    array = as_array(given, name, expected)
    if array.ndim != axes or not (np.issubdtype(array.dtype, np.integer) or array.size == 0):
        raise ValueError(f"{name}: expected {expected}, found {found_as(array)}")
    if array.size and not (0 <= array.min() and array.max() <= largest):
        outside = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name}: expected numbers from 0 to {largest}, found {outside}")
    return array


def aligned(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Numbers of a type where the engine can read them: it counts strides in whole numbers of theirs."""
    return np.require(array, dtype, ["ALIGNED"])


def is_one(value: Any) -> bool:
    """Whether it is a single thing, not many."""
    return not isinstance(value, (list, tuple, range)) and np.ndim(value) == 0


def as_indices(n: Any) -> range | npt.NDArray[np.uint32]:
    """Indices of a series: a range of consecutive ones, or an array."""
    if isinstance(n, range):
        # Before any of them is written down: a range may be longer than memory.
        for outside in (index for index in (*n[:1], *n[-1:]) if not 0 <= index < 2**32):
            raise ValueError(f"indices: expected numbers from 0 to {2**32 - 1}, found {brief(outside)}")
        return n if n.step == 1 else np.arange(n.start, n.stop, n.step, dtype=np.int64).astype(np.uint32)
    if is_one(n):
        return range(number("n", n, least=1))
    array = whole(n, "indices", 1, "a number, a range or whole numbers [N]", 2**32 - 1)
    # A copy, which nobody changes while it is used; so are classes.
    return np.array(array, dtype=np.uint32)


def as_class(given: Any) -> int:
    """A class for all."""
    return number("classes", given, end=2**32)


def as_classes(classes: Any, count: int) -> npt.NDArray[np.uint32] | None:
    """A class for each of `count`."""
    if classes is None:
        return None
    if is_one(classes):
        return np.full(count, as_class(classes), dtype=np.uint32)
    if isinstance(classes, range):
        # One too many will be refused, and need not be written down.
        classes = classes[: count + 1]
    array = whole(classes, "classes", 1, "a class, or one for each [N]", 2**32 - 1)
    return np.array(array, dtype=np.uint32)


def as_images(given: Any, name: str) -> npt.NDArray[np.uint8]:
    """Images `[N, height, width, channels]`, one `[height, width, channels]` as a series of one."""
    expected = "uint8 [N, height, width, channels]"
    array = as_array(given, name, expected)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise ValueError(f"{name}: expected {expected}, found {found_as(array)}")
    return array if array.ndim == 4 else array[np.newaxis]


def as_codes(given: Any, name: str) -> npt.NDArray[np.int32]:
    """Codes of sounds `[N, T]`, of one `[T]` as a series of one."""
    expected = "codes, whole numbers [N, T]"
    array = as_array(given, name, expected)
    array = array[np.newaxis] if array.ndim == 1 else array
    array = whole(array, name, 2, expected, 2**31 - 1)
    if array.shape[1] == 0:
        raise ValueError(f"{name}: expected sounds of at least 1 sample, found {found_as(array)}")
    return aligned(array, np.int32)


def as_state(source: Mapping[Any, Any]) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """The arrays of floats of a dictionary, and of dictionaries in it, by their dotted names."""
    arrays: list[tuple[str, npt.NDArray[np.float32]]] = []
    # A list instead of calls: they may be nested as deeply as anybody likes, but not in themselves.
    ahead: list[tuple[str, Any, tuple[int, ...]]] = [("", source, ())]
    while ahead:
        name, value, within = ahead.pop()
        if not isinstance(value, Mapping):
            array = as_floats(name, value)
            arrays += [] if array is None else [(name.encode(errors="replace").decode(), array)]
            continue
        if id(value) in within or len(within) == DEEPEST:
            raise ValueError(
                f"source: expected arrays in at most {DEEPEST} dictionaries, found more at {brief(name)}"
            )
        before = f"{name}." if within else ""
        ahead += ((f"{before}{key}", inner, (*within, id(value))) for key, inner in value.items())
    return arrays


def as_floats(name: str, value: Any) -> npt.NDArray[np.float32] | None:
    """An array or tensor of floats; None for anything else, which a checkpoint may have beside its weights."""
    is_tensor = callable(getattr(value, "detach", None))
    if not (is_tensor or hasattr(value, "__array__") or isinstance(value, (list, tuple))):
        return None
    try:
        if is_tensor:
            # Of torch's, wherever it is; bfloat16 is none of numpy's types.
            value = value.detach().to("cpu")
            value = (value.float() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(value, (list, tuple)):
            return None
        # A tensor without numbers, or with some of which numpy knows nothing.
        raise ValueError(f"source: {brief(name)}: {brief(error)}") from None
    if not np.issubdtype(array.dtype, np.floating):
        return None
    with np.errstate(over="ignore"):
        # Infinity is refused where it is used.
        return aligned(array, np.float32)
