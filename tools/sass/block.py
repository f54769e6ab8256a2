"""One block runs through a kernel's machine code, and a clock runs for each of its warps.

The idea: a warp issues one instruction after the other. Before one it waits for the scoreboards that the instruction
names, after it as long as ptxas says; a scoreboard that guards memory or a special function is ready after a stated
latency. Which way a branch goes is computed. Lanes of a warp that part ways run one group after the other until they
meet again, at the instructions that ptxas puts there for it (BSSY and BSYNC), so both ways cost.

Warps issue in the order of time, and those of one scheduler, every fourth, an instruction a cycle. A block stands for all of
its cluster: what it sends to another one comes to itself too, as if that one had sent it.

Left out: the throughput of memory but of copies to shared memory and of what is streamed (STREAM), and of the units behind the schedulers; queues at
shared memory, unless `WAVEFRONT` says otherwise; instructions that are not in their cache.
"""

from __future__ import annotations

import math
import re
import struct
from heapq import heappop, heappush

from .listing import Instruction, Kernel, Problem
from .semantics import Translator
from .state import (
    LIMIT,
    OWN,
    SCHEDULERS,
    WINDOW,
    Arrivals,
    Awaited,
    Event,
    Gathering,
    Lane,
    Region,
    Warp,
    enumerate_words,
    holds,
    shuffle,
    vote,
    wavefronts,
)


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
        self.shared_fill = launch.get("shared_fill")
        self.constants = {kernel.arguments_at + n: w for n, w in enumerate_words(arguments)}
        # Where sm_75 to sm_90 have the shape of the launch.
        shape = [launch["threads"], 1, 1, launch["blocks"], 1, 1]
        self.constants |= {4 * n: value for n, value in enumerate(shape)}
        # Where sm_90 has whether there are clusters, the blocks of each, and one divided by them.
        if cluster := launch.get("cluster"):
            self.constants |= {0x140: 1, 0x188: cluster, 0x150: struct.unpack("<I", struct.pack("<f", 1 / cluster))[0]}
        names = {
            "register": self.register,
            "load": self.load,
            "store": self.store,
            "touch": self.touch,
            "lost": self.lost,
            "copy": self.copy,
            "send": self.send,
            "expect": self.expect,
            "ask": self.ask,
        }
        self.translator = Translator(kernel, self.bank0, names)
        self.functions: dict[int, object] = {}
        self.decisions: dict[int, bool] = {}  # taken or not, by index of a branch that cannot be computed
        self.touched: list = []  # what the instruction that runs has loaded from: (latency, name)
        self.near: dict[int, int] = {}  # sectors in the first-level cache, and when they are there
        self.accessed: list = []  # and which of shared memory: (thread, address)
        self.copied = 0  # bytes that it copies to shared memory
        self.asked: tuple[Arrivals, int] | None = None  # a phase that it asks for
        self.now, self.running, self.warp = 0, kernel.code[0], None
        self.barriers: dict[int, Gathering] = {}
        self.arrivals: dict[int, Arrivals] = {}
        self.issued = [-1] * SCHEDULERS  # the cycle of the last instruction
        self.streamed = 0  # until when the second-level cache is busy with copies and streams,
        self.port = 0  # and shared memory with accesses
        self.wavefronts: list[tuple[int, int]] = []  # (when, how many)
        self.heap: list[tuple[int, int]] = []
        count = -(-launch["threads"] // 32)
        self.warps = [
            Warp(w, [Lane(32 * w + n) for n in range(min(32, launch["threads"] - 32 * w))])
            for w in range(count)
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
        known |= {name: 0 for name in ("SR_TID.Y", "SR_TID.Z", "SR_CTAID.Y", "SR_CTAID.Z")}
        known["SR_CgaCtaId"] = self.launch["block"] % self.launch.get("cluster", 1)
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
            at &= OWN
            self.accessed.append((lane.thread, at))
            word = self.shared.get(at >> 2, self.shared_fill)
        else:
            region = self.region(at)
            word = self.memory.get(at >> 2, region.fill)
            far = region.latency if region.latency is not None else self.latency["L2"]
            if self.now + far // 2 < region.until:  # when the load is half way
                word = region.before
            if region.streamed:
                self.streamed = max(self.streamed, self.now) + size / self.latency["STREAM"]
                self.touched.append((math.ceil(self.streamed) - self.now + far, region.name))
            elif "STRONG" in self.running.op or region.latency is not None:
                # Not of the first-level cache, nor what is so large that it cannot stay there.
                self.touched.append((far + region.delay, region.name))
            else:
                ready = self.near.setdefault(at >> 5, self.now + far)
                self.touched.append((max(self.latency["L1"], ready - self.now), region.name))
        return word if size == 4 or word is None else word >> 8 * (at & 3) & ((1 << 8 * size) - 1)

    def store(self, lane: Lane, op: str, at: int, value: int | None, size: int) -> None:
        if op == "ST" and at >> 32 == WINDOW:
            op, at = "STS", at & 0xFFFFFFFF
        memory = self.shared if op == "STS" else self.memory
        if op == "STS":
            at &= OWN
            self.accessed.append((lane.thread, at))
        else:
            self.region(at)
        if size < 4 and value is not None:
            mask, old = (1 << 8 * size) - 1, memory.get(at >> 2) or 0
            shift = 8 * (at & 3)
            value = old & ~(mask << shift) | (value & mask) << shift
        memory[at >> 2] = value

    def touch(self, lane: Lane, at: int) -> None:
        self.region(at)

    def copy(self, lane: Lane, to: int, at: int, size: int) -> None:
        """From global to shared memory, whose contents stay what they are."""
        self.region(at)
        self.copied += size

    def send(self, lane: Lane, to: int, value: int | None, arrivals: int, size: int) -> None:
        """A word to a block of the cluster, which stands for one that comes from there."""
        self.shared[(to & OWN) >> 2] = value
        counts = self.arrivals.setdefault(arrivals & OWN, Arrivals())
        counts.sent.append((self.now + self.latency["STAS"], size))
        self.end_phase(counts)

    def expect(self, lane: Lane, at: int, size: int) -> None:
        """As many bytes as this block sends, where it makes more than others, or less."""
        made, of_all = self.launch.get("made", [1, 1])
        counts = self.arrivals.setdefault(at & OWN, Arrivals())
        counts.expected, counts.since = size * made * self.launch.get("cluster", 1) // of_all, self.now
        self.end_phase(counts)

    def end_phase(self, counts: Arrivals) -> None:
        for awaited, warp in counts.end_phase():
            awaited.ready = counts.done[-1] + self.latency["SYNCS"]
            self.schedule(warp)

    def ask(self, lane: Lane, at: int, parity: int) -> int:
        """Whether the phase of a parity has ended: yes, and if not it waits till then."""
        counts = self.arrivals.setdefault(at & OWN, Arrivals())
        phase = sum(time <= self.now for time in counts.done)
        if phase % 2 == parity >> 31:
            self.asked = (counts, phase)
        return 1

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
            values = [holds(lane, predicate) for predicate in wanted]
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

    def regroup(self, warp: Warp) -> None:
        """Chooses the lanes that run next; if there are none the warp has come to a barrier, or has ended."""
        warp.group = self.next_group(warp)
        if warp.group:
            warp.at = warp.group[0].at
            return
        waiting = [lane for lane in warp.lanes if lane.waits == "BAR"]
        if not waiting:
            for name in list(self.barriers):
                self.gather(name)
            return
        self.come(warp, self.kernel.code[waiting[0].at - 1], waiting[0], True)

    def come(self, warp: Warp, i: Instruction, lane: Lane, waits: bool) -> None:
        """A warp comes to a barrier."""
        numbers = [x for x in i.operands if not x.endswith("PT") and not re.fullmatch(r"!?U?P\d", x)]
        values = [lane.r[int(x[1:])] if x.startswith("R") else int(x, 16) for x in numbers]
        name, threads = values[0] if values else 0, values[1] if len(values) > 1 else None
        barrier = self.barriers.setdefault(name, Gathering(threads))
        barrier.came += 1
        barrier.time = max(barrier.time, warp.clock)
        if waits:
            barrier.waiting.append(warp)
        self.gather(name)

    def gather(self, name: int) -> None:
        """Lets the warps at a barrier go on together, if all are there that it waits for."""
        barrier = self.barriers[name]
        needed = barrier.threads // 32 if barrier.threads else sum(not warp.ended for warp in self.warps)
        if barrier.came < needed:
            return
        del self.barriers[name]
        self.count([lane for warp in barrier.waiting for lane in warp.lanes if lane.waits == "BAR"])
        together = barrier.time
        for warp in barrier.waiting:
            k = next(lane.at for lane in warp.lanes if lane.waits == "BAR") - 1
            if together > warp.clock:
                warp.events.append(Event(k, together, together - warp.clock, "other warps", False))
            warp.events.append(Event(k, together + self.latency["BAR"], self.latency["BAR"], "BAR", False))
            warp.clock = together + self.latency["BAR"]
            for lane in warp.lanes:
                if lane.waits == "BAR":
                    lane.waits = ""
            self.regroup(warp)
            self.schedule(warp)

    def ready(self, warp: Warp) -> tuple[int | None, str]:
        """When a warp can issue its next instruction, and what it waits for; None: that is not known yet."""
        i, until, reason = self.kernel.code[warp.at], warp.clock, ""
        for n in range(6):
            if i.wait >> n & 1:
                for awaited in warp.boards[n]:
                    if awaited.ready is None:
                        return None, awaited.name
                    if awaited.ready > until:
                        until, reason = awaited.ready, awaited.name
        if i.base == "DEPBAR" and warp.copies:
            still = int(i.operands[1], 16) if len(i.operands) > 1 else 0
            if len(warp.copies) > still and (time := warp.copies[-1 - still]) > until:
                until, reason = time, "copies"
        return until, reason

    def schedule(self, warp: Warp) -> None:
        """Gives a warp its place in the order of time, if it runs and knows when."""
        if warp.group and not warp.queued and (time := self.ready(warp)[0]) is not None:
            warp.queued = True
            heappush(self.heap, (time, warp.number))

    def step(self, warp: Warp, now: int, stop) -> bool:
        """Issues a warp's next instruction; true if `stop` says so before."""
        k, group = warp.at, warp.group
        i = self.kernel.code[k]
        if len(warp.events) > LIMIT:
            raise Problem(f"{self.where(i)}: a loop that does not end, after {LIMIT} instructions")
        # The clock.
        until, reason = self.ready(warp)
        for n in range(6):
            if i.wait >> n & 1:
                warp.boards[n] = []
        if now > until:
            warp.events.append(Event(k, now, now - until, "issue slot", False))
        event = Event(k, now, until - warp.clock, reason)
        warp.events.append(event)
        self.now, self.running, self.warp = now, i, warp
        self.touched, self.accessed, self.copied, self.asked = [], [], 0, None
        if stop(warp, event):
            return True
        warp.clock = now + max(1, i.stall)
        # What it does.
        moved = False
        if i.base in CONTROL:
            warp.at, moved = self.control(warp, k, group)
        else:
            if k not in self.functions:
                self.functions[k] = self.translator.function(i)
            self.functions[k](group)
            warp.at = k + 1
        self.await_results(warp, i)
        if i.base == "MEMBAR":
            warp.clock = now + self.latency["MEMBAR"]
            warp.events.append(Event(k, warp.clock, self.latency["MEMBAR"], "MEMBAR", False))
        if moved:
            self.regroup(warp)
        return False

    def await_results(self, warp: Warp, i: Instruction) -> None:
        """What an instruction leaves on its way."""
        queue = self.access(i)
        if i.base == "LDGSTS" and self.copied:
            self.streamed = max(self.streamed, self.now) + self.copied / self.latency["STREAM"]
            warp.asked = math.ceil(self.streamed) + self.latency["L2"]
        if i.base == "LDGDEPBAR":
            warp.copies = [*warp.copies[-8:], max(warp.asked, *warp.copies[-1:], self.now)]
        elif i.write != 7:
            cost, name = max(self.touched, default=(self.latency.get(i.base, self.latency["OTHER"]), i.base))
            awaited = Awaited(self.now + cost + queue, name)
            if self.asked:
                counts, phase = self.asked
                awaited.name = "arrivals"
                if phase < len(counts.done):
                    awaited.ready = max(self.now, counts.done[phase]) + self.latency["SYNCS"]
                else:
                    awaited.ready = None
                    counts.asks.setdefault(phase, []).append((awaited, warp))
            warp.boards[i.write].append(awaited)
        if i.read != 7:
            warp.boards[i.read].append(Awaited(self.now + self.latency["READ"] + queue, "operands read"))

    def access(self, i: Instruction) -> int:
        """Counts the wavefronts of an access to shared memory, and tells how long it waits for others."""
        if i.base == "LDGSTS":
            count = -(-self.copied // 128)
        elif self.accessed:
            count = wavefronts(i, self.accessed)
        else:
            return 0
        self.wavefronts.append((self.now, count))
        begin = max(self.port, self.now)
        self.port = begin + count * self.latency["WAVEFRONT"]
        return max(0, self.port - self.latency["WAVEFRONT"] - self.now)

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
            vote(i, group)
            return k + 1, False
        if base == "SHFL":
            shuffle(i, group)
            return k + 1, False
        if base == "BAR" and i.guard and not self.decide(warp, k, group):
            return k + 1, False
        if base == "BAR" and "ARV" in i.op:
            self.come(warp, i, group[0], False)
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

    def count(self, lanes: list[Lane]) -> None:
        """Barriers that also tell in how many threads, in any or in all something holds."""
        if not lanes or "RED" not in self.kernel.code[lanes[0].at - 1].op:
            return
        i = self.kernel.code[lanes[0].at - 1]
        values = [holds(lane, i.operands[-1]) for lane in lanes]
        if None in values:
            answer = None
        else:
            answer = sum(values) if "POPC" in i.op else int(all(values) if "AND" in i.op else any(values))
        for lane in lanes:
            lane.answer = answer

    def go(self, stop) -> None:
        for warp in self.warps:
            self.regroup(warp)
            self.schedule(warp)
        while self.heap:
            time, number = heappop(self.heap)
            warp, scheduler = self.warps[number], number % SCHEDULERS
            if time <= self.issued[scheduler]:
                heappush(self.heap, (self.issued[scheduler] + 1, number))
                continue
            self.issued[scheduler], warp.queued = time, False
            if self.step(warp, time, stop):
                return
            self.schedule(warp)
        for warp in self.warps:
            if not warp.ended:
                lane = next(lane for lane in warp.lanes if lane.waits != "EXIT")
                i = self.kernel.code[lane.at - (lane.waits == "BAR")]
                raise Problem(f"{self.where(i)}: thread {lane.thread} waits for good")


CONTROL = frozenset(
    ("BRA", "BRX", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "BREAK", "BMOV", "WARPSYNC", "BAR", "B2R", "VOTE", "VOTEU", "BPT", "SHFL")
)  # fmt: skip
