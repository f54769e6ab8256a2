"""The loops of a kernel: what one turn is made of, how long it takes, and what share of the multiply-adds it reaches.

The idea: a loop is what lies between a branch backwards and its target, read straight through: a branch inside counts as not
taken. Some warps of each scheduler pass through it a few turns. A scheduler stays with a warp as long as that can go on; a
warp waits as ptxas has written, for scoreboards, for shared memory, where the loads of all of them queue, and for the
registers: those with even numbers and those with odd ones lie in a bank each, which is read once a cycle. An operand that is
marked `.reuse` is kept for the next instruction that has it at the same place (as published microbenchmarks of Ampere have it).

Loops that have others inside are left out, and so are the throughput of memory and of all units but float32's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from .listing import Instruction, Kernel
from .state import SCHEDULERS

# Cycles that a scheduler's float32 unit takes for a warp: 16 or 32 lanes.
FLOAT32_CYCLES = {"sm_75": 2, "sm_80": 2}
FLOAT32 = ("FFMA", "FADD", "FMUL")
# Cycles that shared memory takes for a load of 16 bytes: as the kernels here load, a half-warp 128 bytes at most.
SHARED = {"LDS.128": 2}
# Cycles within which an instruction reads its operands while the next ones begin.
WINDOW = 3
TURNS = 6
APART = 60  # cycles between the begin of a scheduler's warps


@dataclass
class Warp:
    boards: list[int] = field(default_factory=lambda: [0] * 6)
    at: int = 0
    free: int = 0  # when it can issue again
    began: list[int] = field(default_factory=list)  # its turns

    def ready(self, code: list[Instruction], now: int) -> bool:
        wait = code[self.at].wait
        return self.free <= now and all(self.boards[n] <= now for n in range(6) if wait >> n & 1)


@dataclass
class Scheduler:
    warps: list[Warp]
    last: int = 0
    free: int = 0  # when the registers and the float32 unit are, for what comes next
    banks: list[int] = field(default_factory=lambda: [0, 0])
    kept: dict = field(default_factory=dict)  # the register at each place, of a bank

    def pick(self, code: list[Instruction], now: int) -> int | None:
        if self.free > now:
            return None
        order = sorted(range(len(self.warps)), key=lambda n: n != self.last)
        return next((n for n in order if self.warps[n].ready(code, now)), None)

    def read(self, reads: list[tuple[int, int, bool]], now: int) -> None:
        """Reads an instruction's registers; what comes next may have to wait for it."""
        for place, register, reuse in reads:
            bank = register % 2
            if self.kept.get((bank, place)) != (self.last, register):
                self.banks[bank] = max(self.banks[bank], now) + 1
            self.kept[bank, place] = (self.last, register) if reuse else None
        self.free = max(self.free, max(self.banks) - WINDOW + 1)


def reads(i: Instruction) -> list[tuple[int, int, bool]]:
    """Place, register and whether it is kept, of those that are read when it is issued; memory reads its own later."""
    if i.write != 7 or i.read != 7 or i.base in ("LDS", "BAR", "BRA"):
        return []
    sources = [x for x in i.operands[1:] if not re.fullmatch(r"!?U?P[T\d]", x)]
    found = [re.match(r"[-~|]*R(\d+)(\.reuse)?", x) for x in sources]
    return [(place, int(m[1]), bool(m[2])) for place, m in enumerate(found) if m]


def turn(code: list[Instruction], latency: dict, warps: int, unit: int) -> float:
    """Cycles of a turn of that many warps of each scheduler."""
    operands = [reads(i) for i in code]
    schedulers = [Scheduler([Warp(free=APART * n) for n in range(warps)]) for _ in range(SCHEDULERS)]
    all_warps = [warp for scheduler in schedulers for warp in scheduler.warps]
    now = port = 0  # until `port` shared memory is busy
    while any(len(warp.began) < TURNS for warp in all_warps):
        for scheduler in schedulers:
            if (n := scheduler.pick(code, now)) is None:
                continue
            scheduler.last, warp = n, scheduler.warps[n]
            i = code[warp.at]
            if warp.at == 0:
                warp.began.append(now)
            scheduler.read(operands[warp.at], now)
            if i.base in FLOAT32:
                scheduler.free = max(scheduler.free, now + unit)
            asked = now
            if i.base == "LDS":
                asked = max(port, now)
                port = asked + SHARED.get(i.op, 1)
            cost = latency["L2"] if i.base in ("LDG", "LD") else latency.get(i.base, latency["OTHER"])
            if i.write != 7:
                warp.boards[i.write] = max(warp.boards[i.write], asked + cost)
            if i.read != 7:
                warp.boards[i.read] = max(warp.boards[i.read], now + latency["READ"])
            warp.free = now + max(1, i.stall)
            warp.at += 1
            if warp.at == len(code):
                warp.at, warp.free = 0, warp.free + latency["TAKEN"]
        now += 1
    # The first turn begins with nothing under way.
    return sum(warp.began[TURNS - 1] - warp.began[1] for warp in all_warps) / len(all_warps) / (TURNS - 2)


def report(kernel: Kernel, arch: str, latency: dict, warps: int, least: int) -> None:
    spans = set()
    for k, i in enumerate(kernel.code):
        if i.base == "BRA" and "`(" in i.text and (to := kernel.target(i)) <= k:
            spans.add((to, k))
    if not spans:
        return
    print(f"{kernel.name} on {arch}, {warps} warp{'s' * (warps > 1)} of a scheduler: predicted")
    for first, last in sorted(spans):
        code = kernel.code[first : last + 1]
        if len(code) < least:
            continue
        if any((a, b) != (first, last) and first <= a and b <= last for a, b in spans):
            continue  # it has loops inside
        kinds = Counter(i.base for i in code)
        unit = FLOAT32_CYCLES.get(arch, 1)
        cycles = turn(code, latency, warps, unit)
        outer = "{}:{}".format(*code[0].frames[-1]) if code[0].frames else "?"
        inside = f" in {outer}" if outer != code[0].place else ""
        print(f"  {code[0].place}{inside} ({code[0].at:x} to {code[-1].at:x})")
        print(f"    {len(code)} instructions: {', '.join(f'{name} {n}' for name, n in kinds.most_common(8))}")
        text = f"    stalls {sum(max(1, i.stall) for i in code)}; a turn of all takes {cycles:.0f} cycles"
        if kinds["FFMA"]:
            share = kinds["FFMA"] * unit * warps / cycles
            text += f"; FFMA {100 * kinds['FFMA'] / len(code):.0f} % of instructions, {100 * share:.0f} % of the peak"
        print(text)
