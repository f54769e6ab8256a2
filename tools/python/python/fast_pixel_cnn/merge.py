"""Puts parts of one series together: `python -m fast_pixel_cnn.merge PART... --out DIR`.

Image number i of a series is the same wherever it is made, so `generate` can make parts of one series on many
machines (`--first-index A -n K`), each in a directory of its own. The `run.json` that it leaves there says
which series it is and which indices it has. This program reads those, refuses what is not of one series,
tells what is missing, and writes one directory that is what a single run would have written.

The idea: nothing is believed that can be compared, and nothing is held that can be streamed. Arrays go from
memory maps of the parts to the result a few megabytes at a time; single images are hard links where the file
system has them. The result appears whole or not at all, and is a part itself.

Exit status: 0, or 1 if indices are missing (their flags are on stdout, a line for each range), or 2 if the
parts do not fit together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "fast-pixel-cnn/run/1"
# All that decides what image an index is. In parts of one series these are equal.
SERIES = (
    "weights",
    "model",
    "device",
    "precision",
    "seed",
    "noise",
    "temperature",
    "class",
    "image_size",
    "length",
    "given",
)
# The arrays of images and of sounds: the first must be there, the others where all parts have them.
ARRAYS = (("images.npy", "samples.npy", "labels.npy"), ("codes.npy", "waveform.npy", "labels.npy"))
# Indices are below this.
INDICES = 2**32
# Bytes that are copied or compared at a time.
CHUNK = 16 << 20


class Refused(Exception):
    """Why parts cannot be put together, in one line."""


@dataclass
class Range:
    """Indices first to end - 1, which lie in a part from `row` on."""

    part: Part
    first: int
    end: int
    row: int

    def __str__(self) -> str:
        return f"{self.first}" if self.end == self.first + 1 else f"{self.first} to {self.end - 1}"


@dataclass
class Part:
    """A directory of `generate` or of this program, as its run.json describes it."""

    path: Path
    told: dict[str, Any]

    @staticmethod
    def read(path: Path) -> Part | None:
        """The part in a directory; None if a run has claimed it and was ended before it had made anything."""
        file = path / "run.json"
        try:
            told = json.loads(file.read_text())
        except FileNotFoundError:
            if path.is_dir() and all(name.startswith(".") for name in os.listdir(path)):
                return None
            raise Refused(f"{file}: not there, so nothing tells what series {path} is part of") from None
        except (OSError, ValueError, RecursionError) as error:
            raise Refused(f"{file}: {error}") from None
        if not isinstance(told, dict) or told.get("schema") != SCHEMA:
            found = told.get("schema") if isinstance(told, dict) else told
            raise Refused(f"{file}: expected schema {SCHEMA}, found {brief(found)}")
        length, size = told.get("length"), told.get("image_size")
        sized = isinstance(length, int) or (isinstance(size, list) and len(size) == 2)
        if not isinstance(told.get("weights"), str) or not sized:
            raise Refused(f"{file}: it does not tell weights and size")
        files, singles = told.get("files"), told.get("singles")
        if not isinstance(files, (dict, type(None))) or not isinstance(singles, (dict, type(None))):
            raise Refused(f"{file}: files and singles are not what {SCHEMA} has there")
        if files is not None and not isinstance(files.get("names"), list):
            raise Refused(f"{file}: files has no names")
        if singles and not isinstance(singles.get("format"), str):
            raise Refused(f"{file}: singles has no format")
        return Part(path, told)

    @property
    def sounds(self) -> bool:
        return self.told.get("length") is not None

    @property
    def arrays(self) -> list[str]:
        """The arrays that it has, the first of ARRAYS included; else none."""
        names = (self.told.get("files") or {"names": []})["names"]
        names = [name for name in ARRAYS[self.sounds] if name in names]
        return names if ARRAYS[self.sounds][0] in names else []

    @property
    def directory(self) -> Path:
        """The directory of its single images or sounds, if it has them."""
        return self.path / self.single_name

    @property
    def single_name(self) -> str:
        return "sounds" if self.sounds else "images"

    def file(self, index: int) -> str:
        """The name of a single image or sound."""
        return f"{index:06}.{'wav' if self.sounds else 'png'}"

    def ranges_of_arrays(self) -> list[Range]:
        """What its arrays hold, in the order of their rows."""
        ranges, row = [], 0
        try:
            for told in self.told["files"]["ranges"]:
                first, count = told["first_index"], told["count"]
                # Neither true nor 1.0 is a number of images.
                if not (type(first) is type(count) is int and first >= 0 and 1 <= count <= INDICES - first):
                    raise ValueError(brief(told))
                ranges.append(Range(self, first, first + count, row))
                row += count
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{self.path / 'run.json'}: ranges: {type(error).__name__} {error}") from None
        for name in self.arrays:
            self.open(name, row)
        return ranges

    def ranges_of_singles(self) -> list[Range]:
        """What its directory of single images or sounds holds now: a run that was killed has not told all,
        and what has been removed since is not there."""
        indices = []
        with os.scandir(self.directory) as entries:
            for entry in entries:
                digits = entry.name.split(".")[0]
                if digits.isdecimal() and entry.name == self.file(int(digits)) and entry.is_file():
                    indices.append(int(digits))
        ranges: list[Range] = []
        for index in sorted(indices):
            if ranges and ranges[-1].end == index:
                ranges[-1].end += 1
            else:
                ranges.append(Range(self, index, index + 1, 0))
        return ranges

    def open(self, name: str, rows: int | None = None) -> np.ndarray:
        """An array as a memory map; refused unless it has so many rows, of the size that run.json says."""
        file = self.path / name
        try:
            with np.errstate(over="ignore"):
                array = np.lib.format.open_memmap(file, mode="r")
        except Exception as error:  # noqa: BLE001
            # A header that says nonsense ends in exceptions of many kinds.
            raise Refused(f"{file}: {error}") from None
        if array.dtype.kind not in "uif":
            raise Refused(f"{file}: expected an array of numbers, found {array.dtype}")
        if rows is not None:
            size = [self.told["length"]] if self.sounds else list(self.told["image_size"])
            shape = [rows] if name == "labels.npy" else [rows, *size]
            if list(array.shape[: len(shape)]) != shape or not array.flags.c_contiguous:
                raise Refused(f"{file}: expected shape {shape} of its run.json, found {list(array.shape)}")
        return array


def brief(value: Any) -> str:
    """A value of run.json in at most a few words."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:76] + " ..."


def check_series(parts: list[Part]) -> None:
    """Refuses parts that are not of one series, and says where the first two differ."""
    first = parts[0]
    for part in parts[1:]:
        for key in SERIES:
            one, other = first.told.get(key), part.told.get(key)
            if one == other:
                continue
            if isinstance(one, dict) and isinstance(other, dict):
                keys = [k for k in {**one, **other} if one.get(k, one) != other.get(k, other)]
                key = f"{key}.{keys[0]}"
                one, other = (told.get(keys[0], "not there") for told in (one, other))
            raise Refused(
                f"{first.path} and {part.path} are not of one series: {key} is {brief(one)} in the first and "
                f"{brief(other)} in the second"
            )
        one, other = first.told.get("version"), part.told.get("version")
        if one != other:
            note(f"warning: {first.path} was made by version {one}, {part.path} by version {other}")


def same(one: Range, other: Range, names: list[str] | None, first: int, end: int) -> int | None:
    """The first index from `first` to `end` - 1 at which two parts differ; None if there is none."""
    if names is None:
        for index in range(first, end):
            files = [r.part.directory / r.part.file(index) for r in (one, other)]
            if files[0].read_bytes() != files[1].read_bytes():
                return index
        return None
    for name in names:
        arrays = [r.part.open(name)[first - r.first + r.row : end - r.first + r.row] for r in (one, other)]
        if arrays[0].dtype != arrays[1].dtype or arrays[0].shape != arrays[1].shape:
            return first
        for rows in chunks(arrays[0]):
            # As bytes: a number that is none is equal to itself here.
            differ = [a[rows].view(np.uint8).reshape(len(a[rows]), -1) for a in arrays]
            unequal = (differ[0] != differ[1]).any(axis=1)
            if unequal.any():
                return first + int(rows.start) + int(unequal.argmax())
    return None


def chunks(array: np.ndarray) -> Iterator[slice]:
    """Rows of an array, so many at a time as CHUNK bytes have."""
    step = max(1, CHUNK // max(1, array[:1].nbytes))
    return (slice(start, min(start + step, len(array))) for start in range(0, len(array), step))


def once(ranges: list[Range], names: list[str] | None, skip: bool) -> list[Range]:
    """The ranges in the order of indices, each index once. Doubled ones are refused unless they are to be
    skipped and are the same."""
    kept: list[Range] = []
    for found in sorted(ranges, key=lambda r: r.first):
        for other in reversed(kept):
            if other.end <= found.first:
                break
            first, end = max(found.first, other.first), min(found.end, other.end)
            if first >= end:
                continue
            both = f"{other.part.path} and in {found.part.path}"
            differs = same(other, found, names, first, end)
            if differs is not None:
                raise Refused(
                    f"index {differs} is in {both}, and differs, though all that decides it is equal: "
                    f"one was changed"
                )
            if not skip:
                raise Refused(
                    f"index {Range(found.part, first, end, 0)} is in {both}, the same: leave one of them "
                    f"out, or take what is doubled once with --skip-doubles"
                )
        done = kept[-1].end if kept else 0
        if found.end > done:
            kept += cut([found], done, found.end)
    return kept


def cut(ranges: list[Range], first: int, end: int) -> list[Range]:
    """What of sorted ranges lies between two indices."""
    within = []
    for r in ranges:
        a, b = max(r.first, first), min(r.end, end)
        if a < b:
            within.append(Range(r.part, a, b, r.row + a - r.first))
    return within


def gaps(ranges: list[Range], first: int, end: int) -> list[tuple[int, int]]:
    """What sorted ranges lack of the indices from `first` to `end` - 1: first index and count of each gap."""
    missing = []
    for start, stop in [(r.first, r.end) for r in ranges] + [(end, end)]:
        if start > first:
            missing.append((first, start - first))
        first = max(first, stop)
    return missing


def write_arrays(draft: Path, ranges: list[Range], names: list[str]) -> None:
    """Writes each array of the parts behind one another."""
    rows = sum(r.end - r.first for r in ranges)
    for name in names:
        model = ranges[0].part.open(name)
        with open(draft / name, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(model.dtype), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, *model.shape[1:])})
            for r in ranges:
                array = r.part.open(name)
                if (array.dtype, array.shape[1:]) != (model.dtype, model.shape[1:]):
                    raise Refused(
                        f"{r.part.path / name}: {array.dtype} {list(array.shape[1:])}, but in "
                        f"{ranges[0].part.path} {model.dtype} {list(model.shape[1:])}"
                    )
                array = array[r.row : r.row + r.end - r.first]
                file.writelines(np.ascontiguousarray(array[chunk]).data for chunk in chunks(array))
            file.flush()
            os.fsync(file.fileno())


def write_singles(draft: Path, ranges: list[Range]) -> None:
    """Links the single images or sounds, or copies them where they cannot be linked."""
    directory = draft / ranges[0].part.single_name
    directory.mkdir()
    for r in ranges:
        for index in range(r.first, r.end):
            name = r.part.file(index)
            source = r.part.directory / name
            try:
                # What a symbolic link points to: a link to the link would lead elsewhere from here.
                os.link(os.path.realpath(source) if source.is_symlink() else source, directory / name)
            except OSError:
                shutil.copyfile(source, directory / name)


def describe(ranges: list[Range], names: list[str] | None) -> dict[str, Any]:
    """The run.json of the result."""
    first, last = ranges[0], ranges[-1]
    told = first.part.told
    versions = sorted({str(r.part.told.get("version")) for r in ranges})
    whole = [{"first_index": first.first, "count": last.end - first.first}]
    singles = {**(told.get("singles") or {}), "ranges": whole} if names is None else None
    return {
        "schema": SCHEMA,
        "version": ", ".join(versions),
        **{key: told[key] for key in SERIES if key in told},
        "files": {"names": names, "ranges": whole} if names is not None else None,
        "singles": singles,
    }


def write(out: Path, ranges: list[Range], names: list[str] | None) -> None:
    """Writes the result beside its place and puts it there when it is whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-", suffix=".draft"))
    try:
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o777 & ~umask)
        write_singles(draft, ranges) if names is None else write_arrays(draft, ranges, names)
        (draft / "run.json").write_text(json.dumps(describe(ranges, names), indent=2) + "\n")
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def collect(parts: list[Part], wanted: str | None) -> tuple[list[Range], list[str] | None]:
    """What the parts hold, and the names of the arrays that it is in; None for single images or sounds."""
    single = parts[0].single_name
    without = [part for part in parts if not part.arrays]
    if wanted == "npy" or (wanted is None and not without):
        if without:
            raise Refused(f"{without[0].path} has no {ARRAYS[parts[0].sounds][0]}")
        names = [name for name in ARRAYS[parts[0].sounds] if all(name in part.arrays for part in parts)]
        return [r for part in parts for r in part.ranges_of_arrays()], names
    if wanted not in (None, single):
        raise Refused(f"--format {wanted}: the parts have {single}")
    without = [part for part in parts if not (part.told.get("singles") and part.directory.is_dir())]
    if without:
        hint = "" if wanted else f", and {next(p.path for p in parts if not p.arrays)} has no arrays"
        raise Refused(f"{without[0].path} has no directory of single {single}{hint}")
    formats = {part.told["singles"].get("format"): part for part in parts}
    if len(formats) > 1:
        (one, a), (other, b) = list(formats.items())[:2]
        raise Refused(f"the {single} of {a.path} are {one}, those of {b.path} {other}")
    return [r for part in parts for r in part.ranges_of_singles()], None


def merge(
    paths: list[Path],
    out: Path,
    first_index: int | None = None,
    count: int | None = None,
    format: str | None = None,
    skip_doubles: bool = False,
) -> list[tuple[int, int]]:
    """Puts parts together in the directory `out`. Returns what is missing, first index and count of each gap:
    then nothing is written. Raises Refused for what does not fit together."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not os.listdir(out))):
        raise Refused(f"{out}: something is there already, and nothing is overwritten: choose another --out")
    found = [(path, Part.read(path)) for path in paths]
    for path, part in found:
        if part is None:
            note(f"warning: {path} has nothing: a run was ended there before its first batch was finished")
    parts = [part for _, part in found if part is not None]
    if not parts:
        raise Refused("none of the parts has anything")
    check_series(parts)
    ranges, names = collect(parts, format)
    ranges = once(ranges, names, skip_doubles)
    if not ranges:
        raise Refused("none of the parts has anything")
    # As generate has it: a count is from index 0 on unless the first one is told.
    first = first_index if first_index is not None else 0 if count is not None else ranges[0].first
    end = first + count if count is not None else max(first, ranges[-1].end)
    if end <= first:
        raise Refused(f"nothing is asked for: the parts have {ranges[0].first} to {ranges[-1].end - 1}")
    if end > INDICES:
        raise Refused(f"indices are below 2^32: there are none from {first} to {brief(end - 1)}")
    ranges = cut(ranges, first, end)
    missing = gaps(ranges, first, end)
    if missing:
        return missing
    write(out, ranges, names)
    return []


def note(line: str) -> None:
    """One line on stderr, whatever a file's name brings along."""
    print("".join(c if c.isprintable() else " " for c in line), file=sys.stderr)


def natural(text: str) -> int:
    """The value of a flag that counts."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> Any:
        note(f"error: {message}; see --help")
        raise SystemExit(2)


def main() -> int:
    parser = Parser(prog="python -m fast_pixel_cnn.merge", description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="+", type=Path, metavar="PART", help="a save directory of generate")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new directory, the result")
    text = "first index of the result [default: the lowest there is; 0 with --count]"
    parser.add_argument("--first-index", type=natural, metavar="A", help=text)
    text = "images or sounds of the result [default: up to the highest index there is]"
    parser.add_argument("-n", "--count", type=natural, metavar="N", help=text)
    text = "arrays, or single files [default: arrays where all parts have them]"
    parser.add_argument("--format", choices=["npy", "images", "sounds"], help=text)
    text = "take what two parts have, and is the same in both, once"
    parser.add_argument("--skip-doubles", action="store_true", help=text)
    args = parser.parse_args()
    try:
        missing = merge(args.parts, args.out, args.first_index, args.count, args.format, args.skip_doubles)
    except Refused as refused:
        note(f"error: {refused}")
        return 2
    except OSError as error:
        # What cannot be written has no name.
        note(f"error: {error.filename or args.out}: {error.strerror}")
        return 2
    except KeyboardInterrupt:
        return 130
    for first, count in missing:
        print(f"--first-index {first} -n {count}")
    if missing:
        total = sum(count for _, count in missing)
        note(
            f"error: {total} are missing: stdout has the flags of generate that make them, a line for each "
            f"range"
        )
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
