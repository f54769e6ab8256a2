"""One block runs through a kernel's machine code, and a clock runs for each of its warps.

The idea: a warp issues one instruction after the other. Before one it waits for the scoreboards that the instruction
names, after it as long as ptxas says; a scoreboard that guards memory or a special function is ready after a stated
latency. Which way a branch goes is computed. Lanes of a warp that part ways run one group after the other until they
meet again, at the instructions that ptxas puts there for it (BSSY and BSYNC), so both ways cost.

Left out: warps that compete for an issue slot (a block of four warps has a scheduler for each, if it is alone on its
multiprocessor), the throughput of memory, banks of shared memory, and instructions that are not in their cache.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from .listing import Instruction, Kernel, Problem
from .semantics import Translator

# Cycles from issue to the result, as published microbenchmarks of Ampere and Hopper have them, rounded. L2: a load that
# the second-level cache answers; L1: the first. READ: until the operands of a store have been read. MEMBAR: until
# earlier writes are visible to all, a trip to L2.
LATENCY = {
    "L2": 270, "L1": 33, "LDS": 30, "LDC": 30, "STG": 10, "ST": 10, "STS": 12, "RED": 10, "REDG": 10, "ATOM": 300,
    "ATOMG": 300, "S2R": 22, "S2UR": 22, "I2F": 22, "I2FP": 22, "F2I": 22, "F2F": 22, "MUFU": 24, "FCHK": 24,
    "SHFL": 25, "VOTE": 12, "R2UR": 12, "CCTL": 30, "MEMBAR": 270, "BAR": 20, "READ": 12, "TAKEN": 4, "OTHER": 20,
}  # fmt: skip
WINDOW = 0x7FFF  # upper half of the addresses by which shared memory is read as if it were global
LIMIT = 300_000  # instructions of a warp, for a loop that does not end


@dataclass
class Region:
    """A part of global memory."""

    name: str
    at: int
    bytes: int
    fill: int | None = None  # a word that nobody has stored
    latency: int | None = None  # if it is not L2's
    delay: int = 0  # what a load waits besides, for somebody else
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
class Warp:
    lanes: list[Lane]
    clock: int = 0
    boards: list = field(default_factory=lambda: [[] for _ in range(6)])
    events: list[Event] = field(default_factory=list)


class Block:
    def __init__(
        self,
        kernel: Kernel,
        launch: dict,
        arguments: bytes,
        regions: list[Region],
        memory: dict,
        latency: dict,
    ):
        self.kernel, self.launch, self.regions, self.latency = kernel, launch, regions, latency
        self.memory, self.shared = memory, {}  # words by address / 4
        self.constants = {kernel.arguments_at + n: w for n, w in enumerate_words(arguments)}
        # Where sm_75 to sm_90 have the shape of the launch.
        shape = [launch["threads"], 1, 1, launch["blocks"], 1, 1]
        self.constants |= {4 * n: value for n, value in enumerate(shape)}
        names = {
            "register": self.register,
            "load": self.load,
            "store": self.store,
            "touch": self.touch,
            "lost": self.lost,
        }
        self.translator = Translator(kernel, self.bank0, names)
        self.functions: dict[int, object] = {}
        self.decisions: dict[int, bool] = {}  # taken or not, by index of a branch that cannot be computed
        self.touched: list = []  # what the instruction that runs has loaded from: (latency, name)
        self.near: dict[int, int] = {}  # sectors in the first-level cache, and when they are there
        self.now, self.running = 0, kernel.code[0]
        count = -(-launch["threads"] // 32)
        self.warps = [
            Warp([Lane(32 * w + n) for n in range(min(32, launch["threads"] - 32 * w))]) for w in range(count)
        ]

    # What instructions ask for.

    def bank0(self, at: int) -> int | None:
        if at in self.constants:
            return self.constants[at]
        if at >= self.kernel.arguments_at:
            raise Problem(
                f"constant bank 0 has no argument at {at:#x}: is the kernel's signature as the source has it?"
            )
        return 0

    def register(self, lane: Lane, name: str) -> int | None:
        thread = lane.thread
        known = {"SR_TID.X": thread, "SR_CTAID.X": self.launch["block"], "SR_LANEID": thread % 32}
        known |= {name: 0 for name in ("SR_TID.Y", "SR_TID.Z", "SR_CTAID.Y", "SR_CTAID.Z", "SR_CgaCtaId")}
        known["SR_SWINHI"] = WINDOW
        if name not in known:
            self.translator.unknown.add(name)
        return known.get(name)

    def region(self, at: int) -> Region:
        for region in self.regions:
            if region.at <= at < region.at + region.bytes:
                return region
        raise Problem(f"{self.where(self.running)}: address {at:#x} is in no memory that the path describes")

    def load(self, lane: Lane, op: str, at: int, size: int) -> int | None:
        if op == "LD" and at >> 32 == WINDOW:
            op, at = "LDS", at & 0xFFFFFFFF
        if op == "LDS":
            self.touched.append((self.latency["LDS"], "LDS"))
            word = self.shared.get(at >> 2)
        else:
            region = self.region(at)
            word = self.memory.get(at >> 2, region.fill)
            far = region.latency if region.latency is not None else self.latency["L2"]
            if self.now + far // 2 < region.until:  # when the load is half way
                word = region.before
            if "STRONG" in self.running.op:
                self.touched.append((far + region.delay, region.name))
            else:
                ready = self.near.setdefault(at >> 5, self.now + far)
                self.touched.append((max(self.latency["L1"], ready - self.now), region.name))
        return word if size == 4 or word is None else word >> 8 * (at & 3) & ((1 << 8 * size) - 1)

    def store(self, lane: Lane, op: str, at: int, value: int | None, size: int) -> None:
        if op == "ST" and at >> 32 == WINDOW:
            op, at = "STS", at & 0xFFFFFFFF
        memory = self.shared if op == "STS" else self.memory
        if op != "STS":
            self.region(at)
        if size < 4 and value is not None:
            mask, old = (1 << 8 * size) - 1, memory.get(at >> 2) or 0
            shift = 8 * (at & 3)
            value = old & ~(mask << shift) | (value & mask) << shift
        memory[at >> 2] = value

    def touch(self, lane: Lane, at: int) -> None:
        self.region(at)

    def lost(self, lane: Lane) -> None:
        raise Problem(
            f"{self.where(self.running)}: `{self.running.text}` stores to an address that is not known"
        )

    # Running.

    def where(self, i: Instruction) -> str:
        return i.place

    def decide(self, warp: Warp, k: int, group: list[Lane]) -> list[Lane]:
        """The lanes of a group that take a branch."""
        i = self.kernel.code[k]
        # `@P0 BRA P1, to` asks for both, and BRX has a register there.
        wanted = [i.guard] if i.guard else []
        if i.base == "BRA" and re.fullmatch(r"!?U?P\d", i.operands[0]):
            wanted.append(i.operands[0])
        if not wanted:
            return group
        taken = []
        for lane in group:
            values = [self.holds(lane, predicate) for predicate in wanted]
            value = False if False in values or 0 in values else None if None in values else True
            if value is None:
                value = self.decisions.get(k)
            if value is None:
                chain = " < ".join(f"{file}:{line}" for file, line in i.frames)
                raise Problem(
                    f"whether `{i.text}` at {i.at:#x} is taken depends on what is not computed; it is of {chain}: "
                    f"say it with [[decide]] (not computed so far: {', '.join(sorted(self.translator.unknown)) or 'nothing'})"
                )
            if value:
                taken.append(lane)
        return taken

    def next_group(self, warp: Warp) -> list[Lane]:
        """Lanes that run together: those that are least far in the code."""
        while True:
            running = [lane for lane in warp.lanes if not lane.waits]
            if running:
                least = min(lane.at for lane in running)
                return [lane for lane in running if lane.at == least]
            # All wait. Those go on whose partners have come, or ended.
            freed = False
            for lane in warp.lanes:
                if (name := lane.waits) not in ("", "BAR", "EXIT"):
                    partners = lane.met.get(name, [])
                    if all(other.waits in (name, "EXIT") for other in partners):
                        for other in partners:
                            if other.waits == name:
                                other.waits, other.at, freed = "", other.at + 1, True
            if not freed:
                return []

    def run(self, warp: Warp, stop) -> bool:
        """Runs a warp up to the next barrier of the block; true if `stop` says so before."""
        code = self.kernel.code
        group, k = self.next_group(warp), 0
        if group:
            k = group[0].at
        while group:
            i = code[k]
            if len(warp.events) > LIMIT:
                raise Problem(f"{self.where(i)}: a loop that does not end, after {LIMIT} instructions")
            # The clock.
            until, reason = warp.clock, ""
            for n in range(6):
                if i.wait >> n & 1:
                    for ready, name in warp.boards[n]:
                        if ready > until:
                            until, reason = ready, name
                    warp.boards[n] = []
            event = Event(k, until, until - warp.clock, reason)
            warp.events.append(event)
            self.now, self.running, self.touched = until, i, []
            if stop(warp, event):
                return True
            warp.clock = until + max(1, i.stall)
            # What it does.
            base, moved = i.base, False
            if base in CONTROL:
                k, moved = self.control(warp, k, group)
            else:
                if k not in self.functions:
                    self.functions[k] = self.translator.function(i)
                self.functions[k](group)
                k += 1
            cost, name = max(self.touched, default=(self.latency.get(base, self.latency["OTHER"]), base))
            if i.write != 7:
                warp.boards[i.write].append((until + cost, name))
            if i.read != 7:
                warp.boards[i.read].append((until + self.latency["READ"], "operands read"))
            if base == "MEMBAR":
                warp.clock = until + self.latency["MEMBAR"]
                warp.events.append(Event(k - 1, warp.clock, self.latency["MEMBAR"], "MEMBAR", False))
            if moved:
                group = self.next_group(warp)
                if group:
                    k = group[0].at
        return False

    def control(self, warp: Warp, k: int, group: list[Lane]) -> tuple[int, bool]:
        """A branch and its like. Whether the group may have changed; if not, where it goes on."""
        i = self.kernel.code[k]
        base = i.base
        for lane in group:
            lane.at = k + 1
        if base == "BSSY":
            for lane in group:
                lane.met[i.operands[0]] = list(group)
            return k + 1, False
        if base in ("BSYNC", "WARPSYNC") and "COLLECTIVE" not in i.op:
            name = i.operands[0] if base == "BSYNC" else f"B at {k}"
            for lane in group:
                lane.waits, lane.at = name, k
                if base == "WARPSYNC":
                    lane.met[name] = warp.lanes
            return k, True
        if base == "BREAK":
            for lane in self.decide(warp, k, group):
                for other in lane.met.get(i.operands[-1], []):
                    if other is not lane:
                        other.met[i.operands[-1]] = [x for x in other.met[i.operands[-1]] if x is not lane]
            return k + 1, False
        if base == "BMOV":  # puts away a convergence barrier that is needed twice, or brings it back
            to, of = i.operands
            for lane in group:
                if to.startswith("B"):
                    lane.met[to] = lane.r[int(of[1:])] if of != "RZ" else []
                elif to != "RZ":
                    lane.r[int(to[1:])] = lane.met.get(of, [])
            return k + 1, False
        if base == "B2R":  # the answer of a barrier that counts
            for lane in group:
                for x in i.operands:
                    if x.startswith("P") and x != "PT":
                        lane.p[int(x[1:])] = None if lane.answer is None else int(lane.answer != 0)
                    elif x.startswith("R") and x != "RZ":
                        lane.r[int(x[1:])] = lane.answer
            return k + 1, False
        if base in ("VOTE", "VOTEU"):
            self.vote(i, group)
            return k + 1, False
        if base == "BAR":
            for lane in group:
                lane.waits = "BAR"
            return k, True
        if base == "BPT" and self.decide(warp, k, group):
            raise Problem(f"{self.where(i)}: the kernel stops itself here (`{i.text}`)")
        if base == "BRA" and "DIV" in i.op or base == "BPT":
            return k + 1, False  # BRA.DIV: whether the warp has parted, which the lanes themselves tell
        taken = self.decide(warp, k, group)
        if taken:
            warp.clock += self.latency["TAKEN"] * (2 if base == "BRX" else 1)
        if base == "EXIT":
            for lane in taken:
                lane.waits = "EXIT"
            return k + 1, True
        if base in ("BRX", "RET"):
            for lane in taken:
                register = int(i.operands[0].split()[0].removeprefix("R"))
                if lane.r[register] is None:
                    raise Problem(f"{self.where(i)}: where `{i.text}` goes is not known")
                at = lane.r[register]
                if base == "BRX":
                    offset = i.operands[0].split()[1]
                    at = at + self.kernel.code[k + 1].at + int(offset, 16) & 0xFFFFFFFF
                lane.at = self.index(at)
            return k, True
        to = self.kernel.target(i)
        # Of a call the address to return to is in a register by now.
        for lane in taken:
            lane.at = to
        if len(taken) == len(group):
            # Others may stand between here and there.
            return to, len(group) < len(warp.lanes)
        return k + 1, bool(taken)

    def index(self, at: int) -> int:
        if not hasattr(self, "by_address"):
            self.by_address = {i.at: k for k, i in enumerate(self.kernel.code)}
        return self.by_address[at]

    def holds(self, lane: Lane, predicate: str) -> int | None:
        """A predicate of a lane, as an instruction names it: P0, !P0, UP0, PT."""
        name = predicate.removeprefix("!")
        value = 1 if name.endswith("PT") else (lane.q if name.startswith("U") else lane.p)[int(name[-1])]
        return value if value is None or name == predicate else 1 - value

    def vote(self, i: Instruction, group: list[Lane]) -> None:
        values = [self.holds(lane, i.operands[-1]) for lane in group]
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

    def meet(self) -> bool:
        """All warps stand at the block's barrier, or have ended: they go on together. False: all have ended."""
        waiting = [warp for warp in self.warps if any(lane.waits == "BAR" for lane in warp.lanes)]
        stuck = [lane for warp in self.warps for lane in warp.lanes if lane.waits not in ("BAR", "EXIT")]
        if stuck:
            raise Problem(
                f"{self.where(self.kernel.code[stuck[0].at])}: thread {stuck[0].thread} waits for good"
            )
        self.count([lane for warp in waiting for lane in warp.lanes if lane.waits == "BAR"])
        together = max((warp.clock for warp in waiting), default=0)
        for warp in waiting:
            k = next(lane.at for lane in warp.lanes if lane.waits == "BAR") - 1
            if together > warp.clock:
                warp.events.append(Event(k, together, together - warp.clock, "other warps", False))
            warp.events.append(Event(k, together + self.latency["BAR"], self.latency["BAR"], "BAR", False))
            warp.clock = together + self.latency["BAR"]
            for lane in warp.lanes:
                if lane.waits == "BAR":
                    lane.waits = ""
        return bool(waiting)

    def count(self, lanes: list[Lane]) -> None:
        """Barriers that also tell in how many threads, in any or in all something holds."""
        if not lanes or "RED" not in self.kernel.code[lanes[0].at - 1].op:
            return
        i = self.kernel.code[lanes[0].at - 1]
        values = [self.holds(lane, i.operands[-1]) for lane in lanes]
        if None in values:
            answer = None
        else:
            answer = sum(values) if "POPC" in i.op else int(all(values) if "AND" in i.op else any(values))
        for lane in lanes:
            lane.answer = answer

    def go(self, stop) -> None:
        while True:
            for warp in self.warps:
                if self.run(warp, stop):
                    return
            if not self.meet():
                return


CONTROL = frozenset(
    ("BRA", "BRX", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "BREAK", "BMOV", "WARPSYNC", "BAR", "B2R", "VOTE", "VOTEU", "BPT")
)  # fmt: skip


def enumerate_words(data: bytes) -> list[tuple[int, int]]:
    data += bytes(-len(data) % 4)
    return [(n, int.from_bytes(data[n : n + 4], "little")) for n in range(0, len(data), 4)]


def waits(events: list[Event]) -> Counter:
    total = Counter()
    for event in events:
        if event.waited:
            total[event.reason] += event.waited
    return total
