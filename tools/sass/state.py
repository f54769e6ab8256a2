"""What a block consists of while it runs: memory, lanes, warps, and what they wait for; and the assumed latencies.

The idea: `block.py` moves the clocks; here is what they move for, and what a warp's lanes do together.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from .listing import Instruction

# Cycles from issue to the result, as published microbenchmarks of Ampere and Hopper have them, rounded. L2: a load that
# the second-level cache answers; L1: the first. READ: until the operands of a store have been read. MEMBAR: until
# earlier writes are visible to all, a trip to L2. STAS: from there until what is sent to another block of a cluster has come and
# is counted; a hop is 180 to 200 cycles, and this is assumed, not measured. SYNCS: an ask whether all has come. STREAM is no
# latency but the bytes that a multiprocessor gets from L2 a cycle. WAVEFRONT: how long shared memory works at 32 words
# from 32 banks; with 0 its accesses are counted but never wait for each other.
LATENCY = {
    "L2": 270, "L1": 33, "LDS": 30, "LDC": 30, "STG": 10, "ST": 10, "STS": 12, "RED": 10, "REDG": 10, "ATOM": 300,
    "ATOMG": 300, "S2R": 22, "S2UR": 22, "I2F": 22, "I2FP": 22, "F2I": 22, "F2F": 22, "MUFU": 24, "FCHK": 24,
    "SHFL": 25, "VOTE": 12, "R2UR": 12, "CCTL": 30, "MEMBAR": 270, "BAR": 20, "READ": 12, "TAKEN": 4, "OTHER": 20,
    "STAS": 350, "SYNCS": 20, "STREAM": 45, "WAVEFRONT": 0,
}  # fmt: skip
WINDOW = 0x7FFF  # upper half of the addresses by which shared memory is read as if it were global
LIMIT = 300_000  # instructions of a warp, for a loop that does not end
SCHEDULERS = 4
OWN = 0xFFFFFF  # of a shared address; above it is the block's rank in the cluster


@dataclass
class Region:
    """A part of global memory."""

    name: str
    at: int
    bytes: int
    fill: int | None = None  # a word that nobody has stored
    latency: int | None = None  # if it is not L2's
    delay: int = 0  # what a load waits besides, for somebody else
    streamed: bool = False  # whether it is read through once, so that all loads take what STREAM says
    until: int = 0  # the cycle of the block's own clock at which somebody else's stores are to be seen,
    before: int | None = None  # and the word that is read before


@dataclass
class Lane:
    thread: int
    # What nobody has written is 0, not unknown: ptxas lets instructions read it whose result does not depend on it.
    r: list = field(default_factory=lambda: [0] * 256)
    p: list = field(default_factory=lambda: [0] * 7)
    u: list = field(default_factory=lambda: [0] * 256)
    q: list = field(default_factory=lambda: [0] * 7)
    met: dict = field(default_factory=dict)  # lanes to meet, by convergence barrier
    at: int = 0
    answer: int | None = None  # of the last barrier that counts
    waits: str = ""  # at a convergence barrier, "BAR", or "EXIT"


@dataclass
class Event:
    """An instruction that a warp has issued, or what it waits for after one."""

    index: int
    time: int
    waited: int = 0
    reason: str = ""
    issued: bool = True


@dataclass
class Awaited:
    """What a scoreboard guards."""

    ready: int | None  # the cycle; None: it is not known yet
    name: str


@dataclass
class Warp:
    number: int
    lanes: list[Lane]
    clock: int = 0
    boards: list = field(default_factory=lambda: [[] for _ in range(6)])
    events: list[Event] = field(default_factory=list)
    group: list[Lane] = field(default_factory=list)  # lanes that run,
    at: int = 0  # and the instruction that is next
    copies: list[int] = field(default_factory=list)  # when each group of copies to shared memory is there
    asked: int = 0  # when the last copy of the next group is
    queued: bool = False  # whether it has a place in the order of time

    @property
    def ended(self) -> bool:
        return all(lane.waits == "EXIT" for lane in self.lanes)


@dataclass
class Gathering:
    """Warps that have come to a barrier."""

    threads: int | None  # that it waits for; None: the whole block
    came: int = 0
    time: int = 0
    waiting: list[Warp] = field(default_factory=list)


@dataclass
class Arrivals:
    """A barrier in shared memory that counts the bytes that come, phase after phase."""

    expected: int | None = None  # of this phase
    since: int = 0  # when that was said
    sent: list = field(default_factory=list)  # (when it comes, bytes)
    done: list[int] = field(default_factory=list)  # when each phase has ended
    asks: dict = field(default_factory=dict)  # by phase, of those who wait for it: (Awaited, Warp)

    def end_phase(self) -> list[tuple[Awaited, Warp]]:
        """Ends the phase if all that it expects is on its way; those who wait for it."""
        left, time, n = self.expected, 0, 0
        while left is not None and left > 0 and n < len(self.sent):
            time, size = self.sent[n]
            left, n = left - size, n + 1
        if left is None or left > 0:
            return []
        self.done.append(max(time, self.since))
        self.expected, self.sent = None, self.sent[n:]
        return self.asks.pop(len(self.done) - 1, [])


def holds(lane: Lane, predicate: str) -> int | None:
    """A predicate of a lane, as an instruction names it: P0, !P0, UP0, PT."""
    name = predicate.removeprefix("!")
    value = 1 if name.endswith("PT") else (lane.q if name.startswith("U") else lane.p)[int(name[-1])]
    return value if value is None or name == predicate else 1 - value


def vote(i: Instruction, group: list[Lane]) -> None:
    values = [holds(lane, i.operands[-1]) for lane in group]
    if None in values:
        answer = mask = None
    else:
        answer = int(all(values) if "ALL" in i.op else any(values))
        mask = sum(v << lane.thread % 32 for v, lane in zip(values, group))
    for lane in group:
        for x in i.operands[:-1]:
            if m := re.fullmatch(r"(U?)P(\d)", x):
                (lane.q if m[1] else lane.p)[int(m[2])] = answer
            elif m := re.fullmatch(r"(U?)R(\d+)", x):
                (lane.u if m[1] else lane.r)[int(m[2])] = mask


def shuffle(i: Instruction, group: list[Lane]) -> None:
    """Lanes read each other's registers."""
    _, to, of, by, shape = i.operands
    if to == "RZ":
        return

    def value(lane: Lane, x: str) -> int | None:
        return 0 if x == "RZ" else lane.r[int(x[1:])] if x.startswith("R") else int(x, 16)

    values = {lane.thread % 32: value(lane, of) for lane in group}
    results = []
    for lane in group:
        own, shift, limits = lane.thread % 32, value(lane, by), value(lane, shape)
        if shift is None or limits is None:
            results.append(None)
            continue
        first = own & limits >> 8
        last = first | limits & 31 & ~(limits >> 8)
        if "IDX" in i.op:
            other = first | shift & 31 & ~(limits >> 8)
        elif "UP" in i.op:
            other = own - shift if own - shift >= first else own
        else:
            other = own + shift if "DOWN" in i.op else own ^ shift
            other = other if other <= last else own
        results.append(values.get(other))
    for lane, result in zip(group, results):
        lane.r[int(to[1:])] = result


def wavefronts(i: Instruction, accessed: list[tuple[int, int]]) -> int:
    """In how many parts shared memory serves an access: 32 words of different banks, or the same ones, at a time.

    Loads of 16 bytes it serves to 8 threads at a time, of 8 bytes to 16, and to twice as many if of all of them each reads what
    its neighbour reads, or its neighbour but one: so NVIDIA says of compute capability 7.0 to 7.5.
    """
    lanes = 8 if ".128" in i.op else 16 if ".64" in i.op else 32
    if lanes < 32 and i.base == "LDS":
        first: dict[int, int] = {}
        for thread, at in accessed:
            first[thread] = min(at, first.get(thread, at))
        if any(all(first.get(n ^ other, at) == at for n, at in first.items()) for other in (1, 2)):
            lanes *= 2
    words: dict[tuple[int, int], set[int]] = {}
    for thread, at in accessed:
        words.setdefault((thread % 32 // lanes, at >> 2 & 31), set()).add(at >> 2)
    most = Counter()
    for (part, _), of_bank in words.items():
        most[part] = max(most[part], len(of_bank))
    return most.total()


def enumerate_words(data: bytes) -> list[tuple[int, int]]:
    data += bytes(-len(data) % 4)
    return [(n, int.from_bytes(data[n : n + 4], "little")) for n in range(0, len(data), 4)]


def waits(events: list[Event]) -> Counter:
    total = Counter()
    for event in events:
        if event.waited:
            total[event.reason] += event.waited
    return total
