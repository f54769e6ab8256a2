"""`python -m fast_pixel_cnn.merge` on what the real `generate` makes: a merge is one run, bit for bit.

The program is the one that FAST_PIXEL_CNN_GENERATE names, or target/release/generate of this repository.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fast_pixel_cnn import merge as module

ROOT = Path(__file__).parents[3]
GENERATE = Path(os.environ.get("FAST_PIXEL_CNN_GENERATE", ROOT / "target/release/generate"))
CONDITIONAL = ROOT / "tests/golden/cond/v2/params.ckpt"
SOUNDS = ROOT / "tests/golden/wavenet_tiny/model.ckpt-72000"

made = pytest.mark.skipif(
    not GENERATE.exists(),
    reason=f"{GENERATE} is not there: cargo build --release, or FAST_PIXEL_CNN_GENERATE=PATH",
)


def generate(out: Path, first: int, count: int, *flags: object, model: Path = CONDITIONAL) -> Path:
    """Runs the program for some images of 8x8, or sounds of 20 samples, unless flags say otherwise."""
    size = ["--length", 20] if model == SOUNDS else [] if "-i" in flags else ["-i", 8]
    args = ["-c", model, "--first-index", first, "-n", count, "-v", out, "--quiet", *size, *flags]
    subprocess.run([GENERATE, *map(str, args)], check=True, stdout=subprocess.DEVNULL)
    return out


def merge(*args: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the program under test; `limit` is the most bytes that a file of its may have."""
    files = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    command = [sys.executable, "-m", "fast_pixel_cnn.merge", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=files)


def merged(*args: object) -> None:
    """A merge that must succeed, and has nothing to tell."""
    run = merge(*args)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def refused(*args: object, says: tuple[object, ...], **more: int) -> None:
    """A merge that must fail in one line that says so much, and leave nothing behind."""
    out = Path(args[args.index("--out") + 1])
    before = sorted(out.parent.iterdir())
    run = merge(*args, **more)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1), run.stderr
    assert run.stderr.startswith("error: ") and all(str(part) in run.stderr for part in says), run.stderr
    assert sorted(out.parent.iterdir()) == before


def contents(directory: Path) -> dict[str, bytes]:
    """Every file that is seen in a directory and below."""
    files = [file for file in sorted(directory.rglob("*")) if file.is_file() and file.name[0] != "."]
    return {str(file.relative_to(directory)): file.read_bytes() for file in files}


def split(place: Path, cuts: list[int], *flags: object, model: Path = CONDITIONAL) -> list[Path]:
    """Parts from one cut to the next."""
    pairs = list(zip(cuts, cuts[1:]))
    return [generate(place / f"{a:06}", a, b - a, *flags, model=model) for a, b in pairs]


@made
@pytest.mark.parametrize(
    ("model", "format", "other"),
    [
        (CONDITIONAL, "npy", ["--threads", 1]),
        (CONDITIONAL, "images", ["--naive"]),
        (SOUNDS, "npy", ["-b", 3]),
        (SOUNDS, "wav", []),
        (SOUNDS, "wav-f32", []),
    ],
)
def test_a_merge_is_one_run(
    tmp_path: Path, model: Path, format: str, other: list[object], whole: int = 17
) -> None:
    one = contents(generate(tmp_path / "one", 3, whole, "--format", format, model=model))
    parts = split(tmp_path / "a", [3, 4, 9], "--format", format, model=model)
    parts += split(tmp_path / "b", [9, 15, 20], "--format", format, *other, model=model)
    before = [contents(part) for part in parts]
    random.Random(1).shuffle(parts)
    merged(*parts, "--out", tmp_path / "deep/all")
    assert contents(tmp_path / "deep/all") == one
    # Merges can be merged, and the parts are what they were.
    merged(tmp_path / "a/000003", tmp_path / "a/000004", "--out", tmp_path / "begin")
    merged(tmp_path / "b/000009", tmp_path / "begin", tmp_path / "b/000015", "--out", tmp_path / "again")
    assert contents(tmp_path / "again") == one
    assert sorted(map(str, before)) == sorted(str(contents(part)) for part in parts)


@made
def test_single_images_are_linked_and_one_directory_may_be_filled_by_many_runs(tmp_path: Path) -> None:
    part = tmp_path / "part"
    for first in (0, 6, 3):
        generate(part, first, 2, "--format", "images")
    # As a run that was killed leaves them: not told in run.json, but whole.
    told = json.loads((part / "run.json").read_text())
    told["singles"]["ranges"] = []
    (part / "run.json").write_text(json.dumps(told))
    other = generate(tmp_path / "other", 2, 1, "--format", "images,npy")
    last = generate(tmp_path / "last", 5, 1, "--format", "images")
    merged(part, other, last, "--out", tmp_path / "all")
    image = Path("images/000006.png")
    assert (tmp_path / "all" / image).samefile(part / image)
    assert contents(tmp_path / "all") == contents(generate(tmp_path / "one", 0, 8, "--format", "images"))
    # A symbolic link stands for what it points to, and for nothing where that is gone.
    (part / "images/000003.png").rename(part / "moved.png")
    (part / "images/000003.png").symlink_to("../moved.png")
    merged(part, other, last, "--out", tmp_path / "linked")
    assert contents(tmp_path / "linked") == contents(tmp_path / "all")
    assert not (tmp_path / "linked/images/000003.png").is_symlink()
    (part / "moved.png").unlink()
    assert merge(part, other, last, "--out", tmp_path / "no").stdout == "--first-index 3 -n 1\n"
    # What an index belongs to can be chosen where there is both.
    both = generate(tmp_path / "both", 3, 2, "--format", "images,npy")
    merged(other, both, "--out", tmp_path / "arrays")
    merged(other, both, "--out", tmp_path / "singles", "--format", "images")
    assert "images.npy" in contents(tmp_path / "arrays") and "images" not in os.listdir(tmp_path / "arrays")
    assert sorted(os.listdir(tmp_path / "singles")) == ["images", "run.json"]
    refused(part, other, "--out", tmp_path / "no", "--format", "npy", says=(part, "has no images.npy"))
    arrays = generate(tmp_path / "npy", 8, 2, "--format", "npy")
    refused(part, arrays, "--out", tmp_path / "no", says=(arrays, "no directory of single images", part))


@made
@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["-s", 1], "seed", "2702 in the first and 1 in the second"),
        (["--temperature", 0.8], "temperature", "1.0 in the first and 0.8 in"),
        (["--precision", "bf16"], "precision", '"f32" in the first and "bf16"'),
        (["--class", 3], "class", '"all" in the first and 3 in'),
        (["-i", "8x12"], "image_size", "[8, 8] in the first and [8, 12]"),
        (["--raw"], "weights", ""),
    ],
)
def test_parts_of_other_series_are_refused(tmp_path: Path, flags: list[object], key: str, value: str) -> None:
    one = generate(tmp_path / "one", 0, 2)
    two = generate(tmp_path / "two", 2, 2, *flags)
    says = (one, two, "not of one series", key, value)
    refused(one, two, "--out", tmp_path / "all", says=says)


@made
def test_device_and_model_are_compared_and_a_version_is_warned_of(tmp_path: Path) -> None:
    one, two = split(tmp_path, [0, 2, 4])
    told = json.loads((two / "run.json").read_text())

    def say(**changed: object) -> None:
        (two / "run.json").write_text(json.dumps({**told, **changed}))

    say(device="cuda")
    refused(one, two, "--out", tmp_path / "all", says=('device is "cpu" in the first and "cuda"',))
    say(model={**told["model"], "nonlinearity": "elu"})
    refused(one, two, "--out", tmp_path / "all", says=('model.nonlinearity is "concat_elu"', '"elu"'))
    say(version="9.9.9")
    run = merge(one, two, "--out", tmp_path / "all")
    assert run.returncode == 0 and "9.9.9" in run.stderr and run.stderr.startswith("warning: ")


@made
def test_what_is_missing_is_told_as_the_flags_that_make_it(tmp_path: Path) -> None:
    parts = split(tmp_path / "parts", [2, 5, 9, 11, 16])
    kept = [parts[0], parts[2]]
    out = tmp_path / "all"
    run = merge(*kept, "--out", out, "-n", 16)
    assert (run.returncode, out.exists()) == (1, False)
    assert run.stdout == "--first-index 0 -n 2\n--first-index 5 -n 4\n--first-index 11 -n 5\n"
    assert run.stderr.startswith("error: 11 are missing") and run.stderr.count("\n") == 1
    # As a shell would: each line's words after the rest of the command.
    for line in run.stdout.splitlines():
        _, first, _, count = line.split()
        kept.append(generate(tmp_path / "more" / first, int(first), int(count)))
    merged(*kept, "--out", out, "-n", 16)
    assert contents(out) == contents(generate(tmp_path / "one", 0, 16, "--format", "npy"))
    # Without a count what lies between the first and the last counts, and less may be taken than there is.
    run = merge(parts[0], parts[2], "--out", tmp_path / "none")
    assert run.stdout == "--first-index 5 -n 4\n"
    merged(*parts, "--out", tmp_path / "some", "--first-index", 4, "-n", 6)
    one = generate(tmp_path / "some_one", 4, 6, "--format", "npy")
    assert contents(tmp_path / "some") == contents(one)
    run = merge(parts[0], "--out", tmp_path / "none", "--first-index", 100, "-n", 3)
    assert (run.returncode, run.stdout) == (1, "--first-index 100 -n 3\n")


@made
@pytest.mark.parametrize("format", ["npy", "images"])
def test_doubles_are_refused_or_taken_once(tmp_path: Path, format: str) -> None:
    flags = ["--format", format]
    one = generate(tmp_path / "one", 0, 6, *flags)
    two = generate(tmp_path / "two", 4, 6, *flags)
    within = generate(tmp_path / "within", 5, 3, *flags)
    out = tmp_path / "all"
    refused(one, two, "--out", out, says=("index 4 to 5 is in", one, two, "--skip-doubles"))
    refused(one, one, "--out", out, says=("index 0 to 5 is in",))
    merged(two, within, one, "--out", out, "--skip-doubles")
    assert contents(out) == contents(generate(tmp_path / "whole", 0, 10, *flags))
    # One that was changed afterwards is told, whatever the flags. The number beyond the first overlap.
    if format == "npy":
        array = np.load(within / "images.npy", mmap_mode="r+")
        array[2, 7, 7, 2] ^= 1
        array.flush()
    else:
        (within / "images/000007.png").write_bytes(b"another")
    says = ("index 7 is in", two, within, "differs", "was changed")
    refused(one, two, within, "--out", tmp_path / "no", "--skip-doubles", says=says)


@made
def test_what_is_no_part_is_refused_and_one_that_was_ended_early_is_none(tmp_path: Path) -> None:
    one, two = split(tmp_path / "parts", [0, 2, 4], "--format", "npy")
    out = tmp_path / "all"
    early = tmp_path / "early"
    early.mkdir()
    (early / ".generate.json").touch()
    run = merge(one, early, two, "--out", out)
    assert run.returncode == 0 and run.stderr == (
        f"warning: {early} has nothing: a run was ended there before its first batch was finished\n"
    )
    refused(one, two, "--out", out, says=("something is there already",))
    refused(one, tmp_path / "none", "--out", tmp_path / "no", says=("none/run.json",))
    told = (two / "run.json").read_text()
    for text, says in [
        ("{", "run.json: "),
        ("[]", "expected schema"),
        ('{"schema": "fast-pixel-cnn/run/2"}', 'found "fast-pixel-cnn/run/2"'),
        ('{"schema": "fast-pixel-cnn/run/1"}', "does not tell"),
        (told.replace('"count": 2', '"count": 3'), "images.npy: expected shape [3, 8, 8]"),
        (told.replace('"count": 2', '"count": -2'), "ranges"),
        (told.replace('"first_index"', '"first"'), "ranges"),
        (json.dumps({**json.loads(told), "files": []}), "files and singles"),
        (json.dumps({**json.loads(told), "singles": 3}), "files and singles"),
        (json.dumps({**json.loads(told), "files": {"names": 3}}), "files has no names"),
        (json.dumps({**json.loads(told), "files": {"names": ["images.npy"]}}), "ranges"),
        (json.dumps({**json.loads(told), "image_size": 8}), "weights and size"),
        (json.dumps({**json.loads(told), "singles": {"format": ["png"]}}), "singles has no format"),
        (json.dumps({**json.loads(told), "model": {}}), 'is 1 in the first and "not there"'),
        *(
            (told.replace('"count": 2', f'"count": {n}'), "ranges")
            for n in ("Infinity", "2.0", "true", '"2"')
        ),
        (told.replace('"first_index": 2', '"first_index": 4294967295'), "ranges"),
        ("[" * 100_000, "recursion"),
    ]:
        (two / "run.json").write_text(text)
        refused(one, two, "--out", tmp_path / "no", says=(two, says))
    (two / "run.json").unlink()
    refused(one, two, "--out", tmp_path / "no", says=(f"{two}/run.json: not there",))
    (two / "run.json").write_text(told)
    images = (two / "images.npy").read_bytes()
    for header, says in [
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, 8, 8, 3)}", "images.npy: "),
        (f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**62}, 8, 8, 3)}}", "images.npy: "),
        (f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**70}, 8, 8, 3)}}", "images.npy: "),
        ("{'descr': '|u1', 'fortran_order': False, 'shape': (True, 8, 8, 3)}", "images.npy: "),
        ("{'descr': '|S3', 'fortran_order': False, 'shape': (2, 8, 8, 1)}", "an array of numbers, found |S3"),
        ("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2, 8, 8, 0)}", "images.npy: "),
        ("(" * 100, "images.npy: "),
    ]:
        text = header.ljust(117) + "\n"
        (two / "images.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + text.encode() + images[128:])
        refused(one, two, "--out", tmp_path / "no", says=(two, says))
    (two / "images.npy").write_bytes(images)
    refused(
        one, two, "--out", tmp_path / "no", "-n", 0, says=("nothing is asked for: the parts have 0 to 3",)
    )
    refused(one, two, "--out", tmp_path / "no", "-n", 2**32 + 1, says=("indices are below 2^32",))
    refused(one, "--out", tmp_path / "no", "--first-index", 2, says=("the parts have 0 to 1",))
    (two / "labels.npy").unlink()
    refused(one, two, "--out", tmp_path / "no", says=("labels.npy",))
    refused(one, "--out", tmp_path / "no", "-n", "x", says=("--count", "x"))


@made
def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    parts = split(tmp_path / "parts", [0, 40, 80])
    refused(*parts, "--out", tmp_path / "all", says=(f"{tmp_path / 'all'}: File too large",), limit=20_000)


def test_the_arrays_are_never_held(tmp_path: Path) -> None:
    """Fifty thousand images of CIFAR's size in eight parts: 154 MB, of which a few are held at a time."""
    told = {
        "schema": module.SCHEMA,
        "version": "0",
        "weights": "w",
        "image_size": [32, 32],
        "singles": None,
    }
    parts = []
    for first in range(0, 50_000, 6_250):
        part = tmp_path / str(first)
        part.mkdir()
        array = np.lib.format.open_memmap(part / "images.npy", "w+", np.uint8, (6_250, 32, 32, 3))
        array[:, 0, 0, 0] = np.arange(first, first + 6_250) % 251
        del array
        ranges = [{"first_index": first, "count": 6_250}]
        files = {"names": ["images.npy"], "ranges": ranges}
        (part / "run.json").write_text(json.dumps({**told, "files": files}))
        parts.append(part)
    tracemalloc.start()
    assert module.merge(parts[::-1], tmp_path / "all") == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * module.CHUNK, peak
    whole = np.load(tmp_path / "all/images.npy", mmap_mode="r")
    assert whole.shape == (50_000, 32, 32, 3)
    assert (whole[:, 0, 0, 0] == np.arange(50_000) % 251).all()
