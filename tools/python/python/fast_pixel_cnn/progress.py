"""How far a long call is: told to a callable, or drawn as a bar.

The idea: the engine counts images or sounds, those of the batch at hand by their rows, and tells twenty times a second.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, Union

from .arrays import brief

Progress = Union[None, bool, Callable[[float, int], Any]]


@contextmanager
def shown(progress: Progress, total: int, unit: str) -> Iterator[Callable[[float, int], Any] | None]:
    """A callable for the engine: the caller's, one that draws a bar for True, none for None or False."""
    if progress is None or progress is False:
        yield None
    elif progress is not True:
        if not callable(progress):
            raise ValueError(f"progress: expected a callable, True or None, found {brief(progress)}")
        yield progress
    else:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            warnings.warn("progress=True needs tqdm: pip install tqdm", stacklevel=4)
            yield None
            return
        form = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
        with tqdm(total=total, unit=f" {unit}", bar_format=form) as bar:
            yield lambda done, _: bar.update(done - bar.n)
