"""What a kernel is run with, and the marks along its path: a file of `tools/sass/paths`.

The idea: a path is not a list of addresses, which every build changes. It says what the host would say: the arguments
and what lies in memory, field by field, by the names that the kernels' structs have; the branches follow. Marks are
lines of the source by a piece of their text, so that edits elsewhere do not move them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from .listing import Instruction, Kernel, Problem
from .state import Region, enumerate_words

SCALARS = {
    "int": "i",
    "unsigned": "I",
    "float": "f",
    "unsigned char": "B",
    "unsigned long long": "Q",
    "size_t": "Q",
}
SCALARS |= {"bool": "B", "long long": "q", "double": "d", "unsigned short": "H"}


@dataclass
class Mark:
    name: str
    indices: set[int]
    skip: int  # times that it is passed over
    behind: bool  # whether it is the instruction after those
    warp: int | None = None  # whose; None: of the warp that is followed
    until: int = 0  # or, without instructions, the cycle when what others have stored is to be seen


class Sources:
    """The source of a kernel and all that it includes: its structs, its constants, its lines."""

    def __init__(self, source: Path):
        self.lines: dict[str, list[str]] = {}
        self.read(source)
        text = "\n".join(line for lines in self.lines.values() for line in lines)
        self.plain = re.sub(r"//[^\n]*", "", text)
        self.constants = {m[1]: int(m[2]) for m in re.finditer(r"\b([A-Z][A-Z0-9_]+) = (\d+)\b", self.plain)}
        self.structs = {
            m[1]: m[2]
            for m in re.finditer(r"struct (?:alignas\(\d+\) )?(\w+) \{(.*?)\n\};", self.plain, re.DOTALL)
        }

    def read(self, path: Path) -> None:
        try:
            self.lines[path.name] = path.read_text().split("\n")
        except OSError as error:
            raise Problem(f"{path}: {error.strerror}") from None
        for line in self.lines[path.name]:
            included = re.match(r'#include "(.*)"', line)
            if included and included[1] not in self.lines:
                self.read(path.parent / included[1])

    def fields(self, name: str) -> list[tuple[str, str, int]]:
        """Type, name and number of a struct's fields."""
        name = name.rpartition("::")[2]
        if name not in self.structs:
            raise Problem(f"the sources have no struct {name}")
        return declarations(re.sub(r"\{[^{}]*\}", ";", re.sub(r"__device__.*", "", self.structs[name])), ";")

    def alignment(self, kind: str) -> int:
        if kind.endswith("*"):
            return 8
        if kind in SCALARS:
            return struct.calcsize(SCALARS[kind])
        return max(self.alignment(field) for field, _, _ in self.fields(kind))

    def size(self, kind: str) -> int:
        if kind.endswith("*") or kind in SCALARS:
            return self.alignment(kind)
        return len(self.pack(kind, None, kind))

    def pack(self, kind: str, value, where: str) -> bytes:
        """A value in memory; a struct's is a table that names all fields but padding. None: zeros."""
        if kind.endswith("*"):
            return struct.pack("<Q", value or 0)
        if kind in SCALARS:
            if isinstance(value, str):
                if value not in self.constants:
                    raise Problem(f"{where}: the sources have no constant {value}")
                value = self.constants[value]
            try:
                return struct.pack("<" + SCALARS[kind], value or 0)
            except struct.error as error:
                raise Problem(f"{where}: {value!r} is no {kind}: {error}") from None
        fields = self.fields(kind)
        if value is not None:
            if not isinstance(value, dict):
                raise Problem(f"{where}: a struct {kind} is wanted, not {value!r}")
            names = {name for _, name, _ in fields}
            if extra := sorted(set(value) - names - {"struct"}):
                raise Problem(f"{where}: struct {kind} has no field {', '.join(extra)}")
            if missing := [n for _, n, _ in fields if n not in value and "padding" not in n]:
                raise Problem(f"{where}: struct {kind} also has: {', '.join(missing)}")
        data = b""
        for field, name, count in fields:
            data += bytes(-len(data) % self.alignment(field))
            part = None if value is None else value.get(name)
            parts = part if isinstance(part, list) else [part] * count
            for item in parts[:count]:
                data += self.pack(field, item, f"{where}.{name}")
        return data + bytes(-len(data) % (self.alignment(kind)))

    def signature(self, kernel: str) -> list[tuple[str, str, int]]:
        found = re.search(rf"\b{kernel}\(([^)]*)\)\s*\{{", self.plain)
        if not found:
            raise Problem(f"the sources have no kernel {kernel}")
        return declarations(found[1], ",")


def declarations(text: str, separator: str) -> list[tuple[str, str, int]]:
    result = []
    for part in re.sub(r"\b(const|__restrict__|static)\b", "", text).split(separator):
        part = " ".join(part.split())
        if m := re.fullmatch(r"(.*?[\s*])(\w+)(?:\[(\d+)\])?", part):
            result.append((re.sub(r"\s*\*", "*", m[1].strip()), m[2], int(m[3] or 1)))
    return result


def joined(base: dict, above: dict) -> dict:
    """Tables with what one has in the place of what the other one has, table by table."""
    both = base | above
    for key in base.keys() & above.keys():
        if isinstance(base[key], dict) and isinstance(above[key], dict):
            both[key] = joined(base[key], above[key])
    return both


class Scenario:
    def __init__(self, path: Path, root: Path):
        try:
            import tomllib
        except ImportError:
            raise Problem("a path is read by Python 3.11 or later") from None
        self.data = {}
        base = path
        while base:  # a path that has `base` takes from that one what it does not say itself
            try:
                told = tomllib.loads(base.read_text())
            except OSError as error:
                raise Problem(f"{base}: {error.strerror}") from None
            except tomllib.TOMLDecodeError as error:
                raise Problem(f"{base}: {error}") from None
            self.data = joined(told, self.data)
            base = base.parent / told["base"] if "base" in told else None
        self.path = path
        for key in ("source", "kernel", "launch", "memory", "arguments", "mark"):
            if key not in self.data:
                raise Problem(f"{path}: `{key}` is missing")
        self.source = root / self.data["source"]
        self.kernel: str = self.data["kernel"]
        self.launch: dict = self.data["launch"]
        self.sources = Sources(self.source)
        self.lay_out()

    def lay_out(self) -> None:
        """Regions one behind the other, with what lies in them as words."""
        self.regions: list[Region] = []
        self.words: dict[int, int] = {}
        at = 1 << 32
        for name, told in self.data["memory"].items():
            data = b""
            for n, item in enumerate(told.get("items", [])):
                where = f"{self.path.name}: {name}[{n}]"
                begin = len(data)
                for part in item if isinstance(item, list) else [item]:
                    part = dict(self.placed(self.resolve(part)))
                    times, each = part.pop("times", 1), part.pop("each", {})
                    for _ in range(times):
                        data += self.sources.pack(part["struct"], part, where)
                        part |= {field: part[field] + more for field, more in each.items()}
                if (stride := told.get("stride", 0)) and len(data) - begin > stride:
                    raise Problem(f"{where} has {len(data) - begin} bytes, and {stride} is the stride")
                data += bytes(max(0, stride - (len(data) - begin)))
            fill = told.get("fill")
            if isinstance(fill, float):
                (fill,) = struct.unpack("<I", struct.pack("<f", fill))
            size = told.get("bytes", len(data))
            keys = ("latency", "delay", "streamed", "until", "before")
            rest = {key: told[key] for key in keys if key in told}
            if outer := told.get("within"):  # a part of a region, which it hides
                found = next((region for region in self.regions if region.name == outer), None)
                if not found:
                    raise Problem(f"{self.path}: there is no [memory.{outer}] before {name}")
                self.regions.insert(0, Region(name, found.at + told.get("from", 0), size, fill, **rest))
                continue
            self.regions.append(Region(name, at, size, fill, **rest))
            self.words |= {at + n >> 2: word for n, word in enumerate_words(data)}
            at += -(-size // 4096) * 4096

    def resolve(self, item: dict) -> dict:
        """`like` names another table of the file, whose fields it takes where it has none itself."""
        if "like" not in item:
            return item
        base = self.data.get(item["like"])
        if base is None:
            raise Problem(f"{self.path}: there is no [{item['like']}]")
        return self.resolve(base) | {key: value for key, value in item.items() if key != "like"}

    def placed(self, value):
        """A value with addresses of regions, those that have been laid out, in the place of `@NAME`."""
        if isinstance(value, dict):
            return {key: self.placed(inner) for key, inner in value.items()}
        if isinstance(value, str) and value.startswith("@"):
            found = [region.at for region in self.regions if region.name == value[1:]]
            if not found:
                raise Problem(f"{self.path}: there is no [memory.{value[1:]}], or not before")
            return found[0]
        return value

    def arguments(self) -> bytes:
        told, data = self.data["arguments"], b""
        signature = self.sources.signature(self.kernel)
        if extra := sorted(set(told) - {name for _, name, _ in signature}):
            raise Problem(f"{self.path}: {self.kernel} has no argument {', '.join(extra)}")
        for kind, name, _ in signature:
            if name not in told:
                raise Problem(f"{self.path}: {self.kernel} also has the argument {name}")
            data += bytes(-len(data) % self.sources.alignment(kind))
            data += self.sources.pack(kind, self.placed(told[name]), f"{self.path.name}: {name}")
        return data

    def found(self, where: str) -> set[tuple[str, int]]:
        """The lines of the source that hold a text, told as "file: text"."""
        file, _, text = where.partition(": ")
        if file not in self.sources.lines:
            raise Problem(f"{self.path}: {self.source.name} includes no {file}")
        lines = {(file, n) for n, line in enumerate(self.sources.lines[file], 1) if text in line}
        if not lines:
            raise Problem(f"{self.path}: no line of {file} holds `{text}`: a mark for it is needed anew")
        return lines

    def indices(self, kernel: Kernel, told: dict) -> set[int]:
        """The instructions that come from lines, each of which is there itself or inlined there."""
        places = [self.found(where) for where in told["at"]]
        op = told.get("op", "")

        def fits(i: Instruction) -> bool:
            frames = set(i.frames)
            return (i.op + ".").startswith(op) and all(frames & lines for lines in places)

        found = {k for k, i in enumerate(kernel.code) if fits(i)}
        if not found:
            raise Problem(f"{self.path}: no instruction {op} is of {told['at']}")
        return found

    def marks(self, kernel: Kernel, regions: list[Region]) -> list[Mark]:
        marks = []
        first, *rest = self.data["mark"]
        for told in [first, *rest * self.data.get("turns", 1)]:
            if name := told.get("seen"):
                until = max((region.until for region in regions if region.name == name), default=0)
                if not until:
                    raise Problem(f"{self.path}: there is no [memory.{name}] with `until`")
                marks.append(Mark(told["name"], set(), 0, False, None, until))
            else:
                skip, behind = told.get("skip", 0), told.get("behind", False)
                marks.append(Mark(told["name"], self.indices(kernel, told), skip, behind, told.get("warp")))
        return marks

    def decisions(self, kernel: Kernel) -> dict[int, bool]:
        """Branches that cannot be computed, as the file says: taken or not, or "forward" and not back."""
        decided = {}
        for told in self.data.get("decide", []):
            for k in self.indices(kernel, told):
                if kernel.code[k].base == "BRA" and kernel.code[k].guard:
                    forward = kernel.target(kernel.code[k]) > k
                    decided[k] = forward if told["taken"] == "forward" else bool(told["taken"])
        return decided
