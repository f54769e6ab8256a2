"""Images to train on, from wherever they lie.

The idea: whatever the source, the images are one array of bytes [N, H, W, C] in memory, with a class for each
where they are asked for. What is wrong with a source is found here, before anything is computed, and told in
one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = {".png", ".jpg", ".jpeg"}
TORCHVISION = {"cifar10": "CIFAR10", "mnist": "MNIST"}


class DataError(ValueError):
    """What is wrong with the data, in one line."""


@dataclass
class Images:
    """Images [N, H, W, C] of bytes and, where they are asked for, their classes [N]."""

    pixels: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, which) -> Images:
        return Images(self.pixels[which], None if self.labels is None else self.labels[which])

    @property
    def classes(self) -> int:
        return 0 if self.labels is None else int(self.labels.max()) + 1


def load(source: str, labels: bool, train: bool = True) -> Images:
    """Reads a directory of pictures, an .npy or .npz file, or a data set of torchvision by its name;
    `labels`: with the class of each image; `train`: of a data set in two parts the one to train on."""
    path = Path(source)
    if source in TORCHVISION and not path.exists():
        images = from_torchvision(source, train)
    elif path.is_dir():
        images = from_directory(path, labels)
    elif path.suffix == ".npy" and path.is_file():
        images = Images(read_npy(path))
    elif path.suffix == ".npz" and path.is_file():
        images = from_npz(path)
    elif path.exists():
        raise DataError(f"{source}: expected a directory of PNG or JPEG files, .npy or .npz")
    else:
        names = " or ".join(TORCHVISION)
        raise DataError(f"{source}: no such file or directory (nor {names}, which torchvision has)")
    if not labels:
        images.labels = None
    elif images.labels is None:
        hint = "give a directory with a subdirectory for each class, or an .npz with images and labels"
        raise DataError(f"{source}: has no classes: {hint}")
    return checked(images, source)


def checked(images: Images, source: str) -> Images:
    """Refuses what the network cannot take."""
    pixels, labels = images.pixels, images.labels
    if pixels.dtype != np.uint8:
        raise DataError(f"{source}: expected images of bytes (uint8), found {pixels.dtype}")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise DataError(
            f"{source}: expected images [N, H, W, 3], or [N, H, W, 1] or [N, H, W] for gray ones,"
            f" found {list(images.pixels.shape)}"
        )
    if len(pixels) == 0:
        raise DataError(f"{source}: no images")
    height, width = pixels.shape[1:3]
    if height % 4 or width % 4 or not height or not width:
        up = [4 * max(1, -(-size // 4)) for size in (height, width)]
        hint = f"pad them to {up[0]}x{up[1]}, or crop or resize them"
        raise DataError(f"{source}: images are {height}x{width}, and sides must be multiples of 4: {hint}")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (len(pixels),):
            raise DataError(
                f"{source}: expected {len(pixels)} labels, one for each image, found {list(labels.shape)}"
            )
        if labels.dtype.kind not in "iu":
            raise DataError(f"{source}: expected labels that are integers, found {labels.dtype}")
        if labels.min() < 0:
            raise DataError(f"{source}: expected labels from 0, found {labels.min()}")
        labels = labels.astype(np.int64)
    return Images(pixels, labels)


def from_directory(path: Path, labels: bool) -> Images:
    """Pictures in a directory and below it. Subdirectories are the classes, in the order of their names."""
    if labels:
        folders = sorted(
            entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
        if not folders:
            raise DataError(f"{path}: has no subdirectories, one for each class")
        files = [(file, number) for number, folder in enumerate(folders) for file in pictures_in(folder)]
        for number, folder in enumerate(folders):
            if not any(k == number for _, k in files):
                raise DataError(f"{folder}: no PNG or JPEG files for this class")
    else:
        files = [(file, 0) for file in pictures_in(path)]
        if not files:
            raise DataError(f"{path}: no PNG or JPEG files")
    pixels = read_pictures([file for file, _ in files])
    return Images(pixels, np.array([number for _, number in files]) if labels else None)


def pictures_in(path: Path) -> list[Path]:
    found = (file for file in path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
    return sorted(file for file in found if not file.name.startswith("."))


def read_pictures(files: list[Path]) -> np.ndarray:
    """Pictures of one size; gray if all of them are."""

    def read(file: Path, mode: str | None) -> np.ndarray:
        try:
            with Image.open(file) as image:
                # A palette or an alpha channel is RGB; one bit is gray.
                image = image.convert(mode or ("L" if image.mode in ("L", "1", "LA") else "RGB"))
                return np.array(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{file}: cannot be read as a picture: {' '.join(str(error).split())}") from None

    first = read(files[0], None)
    pixels = np.empty((len(files), *first.shape[:2], 3), np.uint8)
    gray = True
    for row, file in enumerate(files):
        image = read(file, None)
        if image.shape[:2] != first.shape[:2]:
            sizes = [f"{a.shape[0]}x{a.shape[1]}" for a in (first, image)]
            raise DataError(f"images of several sizes: {files[0]} is {sizes[0]}, {file} is {sizes[1]}")
        gray = gray and image.ndim == 2
        pixels[row] = image[..., None] if image.ndim == 2 else image
    return pixels[..., :1].copy() if gray else pixels


def read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as .npy: {' '.join(str(error).split())}") from None


def from_npz(path: Path) -> Images:
    """The arrays `images` and, if there are any, `labels`."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise DataError(f"{path}: has no array named images, but {', '.join(arrays.files) or 'none'}")
            return Images(arrays["images"], arrays.get("labels"))
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as .npz: {' '.join(str(error).split())}") from None


def from_torchvision(name: str, train: bool) -> Images:
    try:
        from torchvision import datasets
    except ImportError:
        raise DataError(f"{name} is read by torchvision, which is missing: pip install torchvision") from None
    root = Path.home() / ".cache" / "fast-pixel-cnn"
    try:
        found = getattr(datasets, TORCHVISION[name])(str(root), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name}: cannot be fetched into {root}: {' '.join(str(error).split())}") from None
    return Images(np.asarray(found.data), np.asarray(found.targets))


def split(source: str, held_out: str | None, labels: bool, seed: int) -> tuple[Images, Images]:
    """Images to train on and others that are held out: those of another source, a number of them, or as many
    as `held_out` leaves open: the test part of a data set that has one, or one in twenty, at most 1,000."""
    images = load(source, labels)
    if held_out is not None and not held_out.isdigit():
        test = load(held_out, labels)
    elif held_out is None and source in TORCHVISION and not Path(source).exists():
        test = load(source, labels, train=False)
    else:
        count = int(held_out) if held_out else min(1000, max(1, len(images) // 20))
        if not 0 < count < len(images):
            raise DataError(f"{source}: cannot hold out {count} of {len(images)} images")
        order = np.random.default_rng([seed, 0x5EED]).permutation(len(images))
        # In their own order, so that reading them from a disk is no search.
        return images[np.sort(order[count:])], images[np.sort(order[:count])]
    if test.pixels.shape[1:] != images.pixels.shape[1:]:
        sizes = [list(part.pixels.shape[1:]) for part in (images, test)]
        raise DataError(f"{held_out}: images are {sizes[1]}, those to train on {sizes[0]}")
    if test.classes > images.classes:
        raise DataError(f"{held_out}: has class {test.classes - 1}, of {images.classes} to train on")
    return images, test
