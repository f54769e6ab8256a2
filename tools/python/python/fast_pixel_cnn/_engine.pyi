"""What needs Rust: calls in which everything is said. Use `fast_pixel_cnn.load` instead."""

from typing import Any, Callable, TypedDict

import numpy as np
import numpy.typing as npt
from typing_extensions import TypeAlias

__version__: str
BUILT_WITH_CUDA: bool

Progress: TypeAlias = Callable[[float, int], Any] | None

class Choice(TypedDict):
    raw: bool
    nonlinearity: str | None
    scope: str | None
    params: str | None

class Order(TypedDict):
    count: int
    first_index: int
    indices: npt.NDArray[np.uint32] | None
    seed: int
    classes: int | npt.NDArray[np.uint32] | None
    temperature: float
    method: str
    batch_size: int | None

class Begun(TypedDict):
    images: npt.NDArray[np.uint8]
    rows: int

class Engine:
    config: str | None
    warnings: list[str]
    device: str
    classes: int
    sounds: bool
    sample_rate: int | None
    period: int
    channels: int
    depth: int
    def sample(
        self, order: Order, size: tuple[int, int], begun: Begun | None, floats: bool, progress: Progress
    ) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]: ...
    def nats(
        self, images: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint32] | None, progress: Progress
    ) -> npt.NDArray[np.float64]: ...
    def logits(
        self, images: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint32] | None, progress: Progress
    ) -> npt.NDArray[np.float32]: ...
    def nats_by_class(self, images: npt.NDArray[np.uint8], progress: Progress) -> npt.NDArray[np.float64]: ...

def open(
    source: str | list[tuple[str, npt.NDArray[np.float32]]],
    choice: Choice,
    device: str,
    threads: int | None,
    precision: str,
) -> Engine: ...
def sample_sounds(
    opened: Engine, order: Order, length: int, prime: npt.NDArray[np.int32] | None, progress: Progress
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
def nats_of_sounds(
    opened: Engine,
    codes: npt.NDArray[np.int32],
    classes: npt.NDArray[np.uint32] | None,
    skip: int,
    progress: Progress,
) -> npt.NDArray[np.float64]: ...
def logits_of_sounds(
    opened: Engine,
    codes: npt.NDArray[np.int32],
    classes: npt.NDArray[np.uint32] | None,
    progress: Progress,
) -> npt.NDArray[np.float32]: ...
