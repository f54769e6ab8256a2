"""The loops of a kernel: what one turn is made of, how long it takes, and what share of the multiply-adds it can reach.

The idea: a loop is what lies between a branch backwards and its target, read straight through. With few warps it is
bound by the schedule (stalls, and the waits for scoreboards), with many by issuing: one instruction a cycle. Loops that
have others inside are left out; a branch inside counts as not taken, and the throughput of memory is not counted.
"""

from __future__ import annotations

from collections import Counter

from .listing import Instruction, Kernel

# Cycles that a scheduler's float32 unit takes for a warp: 16 or 32 lanes.
FLOAT32_CYCLES = {"sm_75": 2, "sm_80": 2}


def turn(code: list[Instruction], latency: dict) -> int:
    """Cycles of the second turn, by stalls and scoreboards: the first begins with nothing under way."""
    boards: list[int] = [0] * 6
    now = begun = 0
    for _ in range(2):
        begun = now
        for i in code:
            now = max([now] + [boards[n] for n in range(6) if i.wait >> n & 1])
            cost = latency["L2"] if i.base in ("LDG", "LD") else latency.get(i.base, latency["OTHER"])
            if i.write != 7:
                boards[i.write] = max(boards[i.write], now + cost)
            if i.read != 7:
                boards[i.read] = max(boards[i.read], now + latency["READ"])
            now += max(1, i.stall)
        now += latency["TAKEN"]
    return now - begun


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
        stalls = sum(max(1, i.stall) for i in code)
        with_waits = turn(code, latency)
        multiplied = kinds["FFMA"] * FLOAT32_CYCLES.get(arch, 1)
        issue = max(len(code) * warps, multiplied * warps)
        bound, cycles = max(("issue", issue), ("waits", with_waits), key=lambda pair: pair[1])
        outer = "{}:{}".format(*code[0].frames[-1]) if code[0].frames else "?"
        inside = f" in {outer}" if outer != code[0].place else ""
        print(f"  {code[0].place}{inside} ({code[0].at:x} to {code[-1].at:x})")
        print(f"    {len(code)} instructions: {', '.join(f'{name} {n}' for name, n in kinds.most_common(8))}")
        text = (
            f"    stalls {stalls}, with waits {with_waits}; {bound}-bound: {cycles} cycles for a turn of all"
        )
        if kinds["FFMA"]:
            share = multiplied * warps / cycles
            text += f"; FFMA {100 * kinds['FFMA'] / len(code):.0f} % of instructions, {100 * share:.0f} % of the peak"
        print(text)
