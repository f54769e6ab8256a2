"""What the trainer writes and what it begins from: weights as the engine reads them, states, pictures.

The idea: a run's directory is at any moment what `-c` and `load` take: `model.safetensors` and `config.json`
lie in it, everything else that looks like weights in `state/`. A file appears whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .model import Config, Normed, PixelCNN

WEIGHTS, CONFIG, STATE, LOG = "model.safetensors", "config.json", "state/latest.pt", "log.jsonl"

# The spellings of a normed kernel, as direction and norm; PyTorch's old one and that since 2.1.
SPELLINGS = [
    ("weight_v", "weight_g"),
    ("parametrizations.weight.original1", "parametrizations.weight.original0"),
]

# What a broken file may raise.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    UnpicklingError,
    SafetensorError,
)


class FileError(ValueError):
    """What is wrong with a file, in one line."""


def whole(run: Path, name: str, write: Callable[[Path], None]) -> None:
    """Writes a file of a run: beside its state, then in its place."""
    draft = run / "state" / (Path(name).name + ".draft")
    draft.parent.mkdir(parents=True, exist_ok=True)
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    write(draft)
    os.replace(draft, run / name)


def save_weights(run: Path, model: PixelCNN) -> None:
    """The model as the engine reads it: its arrays and its configuration."""
    config = {**model.config.as_dict(), "averaged": True}
    whole(run, CONFIG, lambda file: file.write_text(json.dumps(config, indent=2) + "\n"))
    whole(run, WEIGHTS, lambda file: save_file(model.folded(), file))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a dictionary that `torch.save` wrote, by their dotted names."""
    try:
        if file.suffix == ".safetensors":
            return {name: value.float() for name, value in load_file(file).items()}
        found = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise FileError(f"{file}: cannot be read as weights: {' '.join(str(error).split())[:200]}") from None
    tensors: dict[str, Tensor] = {}

    def collect(prefix: str, value: object) -> None:
        if isinstance(value, Tensor):
            tensors[prefix[:-1]] = value.float()
        elif isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{prefix}{key}.", inner)

    collect("", found)
    return tensors


def begin_from(path: Path, model: PixelCNN) -> None:
    """Takes the weights of a file, or of a directory with `model.safetensors`: in the names of
    pclucas14/pixel-cnn-pp, under any key, and in any spelling of a normed kernel. Class terms may be missing:
    they stay as they are."""
    file = path / WEIGHTS if path.is_dir() else path
    tensors = read_tensors(file)
    prefixes = {name[: -len("u_init.conv.bias")] for name in tensors if name.endswith("u_init.conv.bias")}
    if len(prefixes) != 1:
        raise FileError(
            f"{file}: expected the weights of one PixelCNN++ (u_init.conv.bias ..), found {len(prefixes)}"
        )
    prefix = prefixes.pop()

    def take(name: str, shape: torch.Size) -> Tensor | None:
        found = tensors.get(prefix + name)
        if found is not None and found.shape != shape:
            raise FileError(f"{file}: {name}: expected shape {list(shape)}, found {list(found.shape)}")
        return found

    for name, module in model.named_modules():
        if isinstance(module, Normed):
            shape, weight = module.weight_v.shape, take(f"{name}.weight", module.weight_v.shape)
            for v, g in SPELLINGS:
                direction = take(f"{name}.{v}", shape)
                norm = take(f"{name}.{g}", torch.Size([shape[0]] + [1] * (len(shape) - 1)))
                if direction is not None and norm is not None:
                    # There the norm is along the first axis, also of a transposed convolution.
                    weight = torch._weight_norm(direction, norm, 0)
            bias = take(f"{name}.bias", module.bias.shape)
            if weight is None or bias is None:
                raise FileError(f"{file}: {prefix}{name}: weight or bias is missing")
            module.set_weight(weight)
            module.bias.data.copy_(bias)
        elif isinstance(module, nn.Embedding):
            weight = take(f"{name}.weight", module.weight.shape)
            if weight is not None:
                module.weight.data.copy_(weight)


def save_state(run: Path, state: dict[str, object]) -> None:
    whole(run, STATE, lambda file: torch.save(state, file))


def load_state(run: Path) -> dict[str, object] | None:
    """The state that a run was left in, if there is one."""
    file = run / STATE
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise FileError(
            f"{file}: cannot be read as a run's state: {' '.join(str(error).split())[:200]}"
        ) from None


def config_of(state: dict[str, object]) -> Config:
    return Config(**state["config"])


def keep_log(run: Path, last_step: int) -> None:
    """Takes back what a killed run logged after the state that it left."""
    file = run / LOG
    if file.exists():
        lines = [line for line in file.read_text().splitlines() if line.endswith("}")]
        kept = [line + "\n" for line in lines if json.loads(line)["step"] <= last_step]
        whole(run, LOG, lambda draft: draft.write_text("".join(kept)))


def save_grid(run: Path, name: str, images: np.ndarray, columns: int) -> None:
    """Images [N, H, W, C] of bytes as one PNG, row by row."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:count] = images
    grid = cells.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(grid.reshape(rows * height, columns * width, channels).squeeze())
    whole(run, name, lambda file: picture.save(file, "PNG"))
