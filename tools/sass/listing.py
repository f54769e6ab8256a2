"""A cubin as instructions: their text, their control words, and the lines of the source that they come from.

The idea: ptxas writes into every instruction how long the warp stalls after it, which of six scoreboards it sets, and
which it waits for. nvdisasm prints the words; what the constant banks hold is read from the file itself.
"""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


class Problem(Exception):
    """One line for the user."""


@dataclass
class Instruction:
    at: int
    text: str
    guard: str  # "P0", "!UP1" or nothing
    op: str  # "LDG.E.128"
    operands: list[str]
    stall: int
    write: int  # scoreboards that it sets, 7: none; when the result is there
    read: int  # and when the operands have been read
    wait: int  # mask of those that it waits for
    frames: tuple[tuple[str, int], ...]  # (file, line), innermost first

    @property
    def base(self) -> str:
        return self.op.split(".")[0]

    @property
    def place(self) -> str:
        """The innermost line of the source that is not the toolkit's."""
        own = [frame for frame in self.frames if frame[0].endswith((".cu", ".cuh"))]
        file, line = (own or list(self.frames) or [("?", 0)])[0]
        return f"{file}:{line}"


@dataclass
class Kernel:
    name: str
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # index of the instruction that follows
    banks: dict[int, bytes] = field(default_factory=dict)  # constant banks that the file holds
    arguments_at: int = 0  # offset of the arguments in bank 0

    def target(self, instruction: Instruction) -> int:
        name = re.search(r"`\((.*?)\)", instruction.text)
        if not name or name[1] not in self.labels:
            raise Problem(f"no target in `{instruction.text}`")
        return self.labels[name[1]]


def sections(cubin: bytes) -> dict[str, bytes]:
    """The sections of a 64-bit ELF file by name."""
    (offset,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, offset + i * size) for i in range(count)]
    table = headers[names]
    found = {}
    for name, kind, _, _, at, length in headers:
        start = table[4] + name
        text = cubin[start : cubin.index(b"\0", start)].decode()
        found[text] = b"" if kind == 8 else cubin[at : at + length]  # 8: takes no place in the file
    return found


def arguments_at(info: bytes) -> int | None:
    """Where the arguments begin in bank 0, from a kernel's `.nv.info`."""
    at = 0
    while at + 4 <= len(info):
        form, attribute, length = struct.unpack_from("<BBH", info, at)
        if form == 4:
            if attribute == 0x0A:  # the bank of the arguments: symbol, offset, size
                return struct.unpack_from("<IHH", info, at + 4)[1]
            at += length
        at += 4
    return None


def disassemble(cubin: Path) -> str:
    try:
        done = subprocess.run(
            ["nvdisasm", "-c", "-hex", "-gi", str(cubin)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise Problem(
            "nvdisasm is not on PATH: it comes with a toolkit, or pip's nvidia-cuda-nvdisasm"
        ) from None
    if done.returncode:
        raise Problem(f"nvdisasm: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


CODE = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*/\* 0x([0-9a-f]{16}) \*/")
FRAME = re.compile(r'\s*//## File "(.*?)", line (\d+)')


def operands(text: str) -> list[str]:
    text = re.sub(r"\(\*.*?\*\)", "", text)
    return [part.strip() for part in text.split(",")] if text.strip() else []


def kernels(cubin: Path) -> list[Kernel]:
    """All kernels of a cubin."""
    held = sections(cubin.read_bytes())
    lines = disassemble(cubin).split("\n")
    found: list[Kernel] = []
    frames: list[tuple[str, int]] = []
    fresh = True  # whether a line of the source would begin a new stack of frames
    for i, line in enumerate(lines):
        if section := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            found.append(Kernel(section[1]))
            frames = []
        elif not found:
            continue
        elif label := re.match(r"(\.L_\w+|\$[\w$]+|\w+):", line):
            found[-1].labels[label[1]] = len(found[-1].code)
        elif frame := FRAME.match(line):
            if fresh:
                frames = []
            frames.append((Path(frame[1]).name, int(frame[2])))
            fresh = False
        elif code := CODE.match(line):
            fresh = True
            high = re.search(r"/\* 0x([0-9a-f]{16}) \*/", lines[i + 1])
            word = (int(high[1], 16) << 64 | int(code[3], 16)) >> 105
            text = code[2].rstrip(" ;")
            parts = re.match(r"(?:@(!?U?P\w+)\s+)?(\S+)\s*(.*)", text)
            found[-1].code.append(
                Instruction(
                    int(code[1], 16),
                    text,
                    parts[1] or "",
                    parts[2].rstrip(";"),
                    operands(parts[3]),
                    word & 15,
                    word >> 5 & 7,
                    word >> 8 & 7,
                    word >> 11 & 63,
                    tuple(frames),
                )
            )
    for kernel in found:
        for name, data in held.items():
            if bank := re.fullmatch(rf"\.nv\.constant(\d+)\.{kernel.name}", name):
                kernel.banks[int(bank[1])] = data
        # sm_90's, if the file does not say.
        kernel.arguments_at = arguments_at(held.get(f".nv.info.{kernel.name}", b"")) or 0x210
    return [kernel for kernel in found if kernel.code]
