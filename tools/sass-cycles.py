#!/usr/bin/env python3
"""Predicts, without a GPU, how many cycles a warp takes along a path through a kernel, and what a loop can reach.

The idea: ptxas writes its schedule into the machine code. How long a warp stalls after an instruction and what it waits
for are there to read; which way the branches go comes out when the code is run with the arguments that a path file
states. Assumed are the latencies of memory and special functions (`--latency` changes them), a block alone on its
multiprocessor, and instructions that are in their cache. A cluster is one block of it that hears itself. The result is a prediction, good to perhaps a quarter, and
better for comparing two versions of a kernel: on a GPU measure instead.

    tools/sass-cycles.py tools/sass/paths/conv2.toml         a path, from mark to mark
    tools/sass-cycles.py tools/sass/paths/cluster.toml       steps of a cluster, from warp to warp
    tools/sass-cycles.py --loops cuda/masked_conv_gemm.cu    the loops, by what their instructions are

It compiles as build.rs does, with the nvcc that is found as there, then by ptxas and nvdisasm (of a toolkit, or pip's
nvidia-cuda-nvdisasm). Nothing but Python's own library is needed, from 3.11 on.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sass import listing, loops
from sass.block import Block
from sass.listing import Kernel, Problem
from sass.scenario import Mark, Scenario
from sass.state import LATENCY, LIMIT, SCHEDULERS, Event, Warp, waits

# Cycles by which what others store comes later, from one try to the next: a poll takes about as long as all of them.
PHASES = range(0, 300, 60)
ROOT = Path(__file__).resolve().parent.parent


def of_build(name: str) -> list[str]:
    """A constant of build.rs: the strings of it, or the number."""
    found = re.search(rf"^const {name}:.*? = (.*);$", (ROOT / "build.rs").read_text(), re.MULTILINE)
    if not found:
        raise Problem(f"build.rs has no `const {name}`")
    return [text or number for text, number in re.findall(r'"(.*?)"|\b(\d+)\b', found[1])]


def find_nvcc() -> Path:
    """As build.rs has it."""
    if nvcc := os.environ.get("NVCC"):
        return Path(nvcc)
    places = [Path(os.environ[name]) / "bin" for name in ("CUDA_PATH", "CUDA_HOME") if name in os.environ]
    places += [ROOT / ".cuda/bin", *map(Path, os.environ.get("PATH", "").split(os.pathsep))]
    places += [Path(toolkit) / "bin" for toolkit in of_build("TOOLKITS")]
    for place in places:
        if (place / "nvcc").is_file():
            return place / "nvcc"
    raise Problem("there is no nvcc: install a CUDA toolkit, or run tools/install-nvcc.sh, or set NVCC")


def execute(command: list) -> None:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Problem(f"cannot run {command[0]}: {error.strerror}") from None
    if done.returncode:
        raise Problem(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")


def cubin_of(path: Path, arch: str, scratch: Path) -> Path:
    """A cubin: of a source, of PTX, or the file itself."""
    if not path.is_file():
        raise Problem(f"{path}: there is no such file")
    if path.suffix == ".cu":
        ptx = scratch / "kernel.ptx"
        oldest = of_build("ARCH")[0]
        if path.stem.startswith(tuple(of_build("CLUSTERS"))):
            oldest = f"compute_{of_build('CLUSTER_ARCH')[0]}"
        execute([find_nvcc(), *of_build("FLAGS"), f"-arch={oldest}", "-o", ptx, path])
        path = ptx
    if path.suffix == ".ptx":
        ptxas = find_nvcc().resolve().parent / "ptxas"
        execute([ptxas, f"-arch={arch}", "-lineinfo", "-o", scratch / "kernel.cubin", path])
        path = scratch / "kernel.cubin"
    return path


def pick(kernels: list[Kernel], name: str) -> Kernel:
    for kernel in kernels:
        if kernel.name == name:
            return kernel
    raise Problem(f"no kernel {name}; there are {', '.join(kernel.name for kernel in kernels)}")


def row(cells: list, widths: list[int]) -> str:
    return " ".join(f"{cell:>{width}}" if width > 0 else str(cell) for cell, width in zip(cells, widths))


def told(events: list[Event], most: int = 8) -> str:
    return ", ".join(f"{name} {cycles}" for name, cycles in waits(events).most_common(most))


def issued(events: list[Event]) -> int:
    return sum(event.issued for event in events)


@dataclass
class Walk:
    """The way from the first mark to the last, of one warp or from one to the other."""

    block: Block
    marks: list[Mark]
    warps: list[Warp]  # of each mark,
    reached: list[int]  # and which of its events
    times: list[int]

    @property
    def cycles(self) -> int:
        return self.times[-1] - self.times[0]

    def part(self, n: int) -> list[Event]:
        """What the n-th mark's warp has done since the mark before. What its last instruction waited for belongs to it."""
        events = self.warps[n].events[: self.reached[n] + 1]
        if self.warps[n] is self.warps[n - 1]:
            return events[self.reached[n - 1] + 1 :]
        return [event for event in events if event.time > self.times[n - 1]]

    def whole(self, warp: Warp) -> list[Event]:
        """What a warp has done from the first mark to the last."""
        if all(other is warp for other in self.warps):
            return warp.events[self.reached[0] + 1 : self.reached[-1] + 1]
        return [event for event in warp.events if self.times[0] < event.time <= self.times[-1]]


def walk(scenario: Scenario, kernel: Kernel, latency: dict, number: int, later: int) -> Walk:
    """Runs the kernel up to the last mark, with what others store `later` than the path has it."""
    regions = [replace(region, until=region.until and region.until + later) for region in scenario.regions]
    block = Block(kernel, scenario.launch, scenario.arguments(), regions, dict(scenario.words), latency)
    block.decisions = scenario.decisions(kernel)
    if not 0 <= number < len(block.warps):
        raise Problem(f"there is no warp {number}: the block has {len(block.warps)}")
    marks, reached, times = scenario.marks(kernel, regions), [], []
    warps = [block.warps[number if mark.warp is None else mark.warp] for mark in marks]
    left = [mark.skip for mark in marks]
    last = [-1] * len(block.warps)  # the instruction that each warp has issued before

    def reach(warp: Warp, time: int) -> None:
        reached.append(len(warp.events) - 1)
        times.append(time)

    def stop(warp: Warp, event: Event) -> bool:
        before, last[warp.number] = last[warp.number], event.index
        if warp is not warps[len(reached)]:
            return False
        if len(warp.events) > LIMIT // 10:
            raise Problem(f"warp {warp.number} does not come to `{marks[len(reached)].name}`")
        while len(reached) < len(marks) and 0 < marks[len(reached)].until <= event.time:
            reach(warp, marks[len(reached)].until)
        if (n := len(reached)) == len(marks):
            return True
        if (before if marks[n].behind else event.index) in marks[n].indices:
            if not left[n]:
                reach(warp, event.time)
            left[n] -= 1
        return len(reached) == len(marks)

    block.go(stop)
    if len(reached) < len(marks):
        raise Problem(f"warp {warps[len(reached)].number} does not come to `{marks[len(reached)].name}`")
    return Walk(block, marks, warps, reached, times)


def busy(way: Walk) -> str:
    """What the block as a whole asks of its multiprocessor between the marks."""
    cycles = max(way.cycles, 1)
    slots = [0] * SCHEDULERS
    for warp in way.block.warps:
        slots[warp.number % SCHEDULERS] += issued(way.whole(warp))
    wavefronts = sum(n for time, n in way.block.wavefronts if way.times[0] < time <= way.times[-1])
    shares = ", ".join(f"{100 * n / cycles:.0f}" for n in slots)
    return f"issue slots taken: {shares} %; shared memory: {wavefronts} wavefronts, {100 * wavefronts / cycles:.0f} %"


def follow(scenario: Scenario, kernel: Kernel, latency: dict, number: int, arch: str, verbose: bool) -> None:
    """Prints the way of one warp. If it polls, the way that takes a middling time of several."""
    polls = any(region.until for region in scenario.regions)
    walks = [walk(scenario, kernel, latency, number, later) for later in (PHASES if polls else PHASES[:1])]
    walks.sort(key=lambda way: way.cycles)
    way = walks[len(walks) // 2]
    times, warp = way.times, way.block.warps[number]
    print(f"{kernel.name} on {arch}, warp {number} of block {scenario.launch['block']}: predicted")
    widths = [7, 7, 7, 0]
    print(row(["at", "cycles", "instr.", "to the mark, and what was waited for before it"], widths))
    print(row([0, "", "", way.marks[0].name], widths))
    for n, mark in enumerate(way.marks[1:]):
        part = way.part(n + 1)
        cells = [times[n + 1] - times[0], times[n + 1] - times[n], issued(part), mark.name]
        print(row(cells, widths) + (f": {text}" if (text := told(part)) else ""))
    whole = way.whole(warp)
    print(f"{way.cycles} cycles, {issued(whole)} instructions; waits: {told(whole, 20)}")
    if len(way.block.warps) > SCHEDULERS:
        print(busy(way))
    if walks[0].cycles < walks[-1].cycles:
        print(f"by when the polls happen to be: {walks[0].cycles} to {walks[-1].cycles} cycles")
    if way.block.translator.unknown:
        print(f"not computed: {', '.join(sorted(way.block.translator.unknown))}")
    if verbose:
        for event in whole:
            i = kernel.code[event.index]
            wait = f"{event.waited} {event.reason}" if event.waited else ""
            text = i.text if event.issued else ""
            print(f"{event.time - times[0]:6} {i.at:6x} {i.place:28} {wait:16} {text}")


def latencies(told: list[str]) -> dict:
    changed = dict(LATENCY)
    for pair in told:
        name, _, cycles = pair.partition("=")
        if name not in LATENCY or not cycles.isdigit():
            raise Problem(f"--latency takes NAME=CYCLES, with one of {', '.join(LATENCY)}")
        changed[name] = int(cycles)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a path (.toml); with --loops a .cu, .ptx or .cubin")
    parser.add_argument("--code", type=Path, help="a .ptx or .cubin of the path's source as it is now")
    parser.add_argument("--arch", default="sm_90", help="what ptxas compiles for (default: %(default)s)")
    parser.add_argument(
        "--latency", action="append", default=[], metavar="NAME=CYCLES", help="instead of the assumed one"
    )
    parser.add_argument(
        "--warp", type=int, help="the warp that is followed (default: the path's `warp` of its launch, or 0)"
    )
    parser.add_argument("--verbose", action="store_true", help="print every instruction of the way")
    parser.add_argument("--loops", action="store_true", help="print the loops of all kernels instead")
    parser.add_argument(
        "--warps", type=int, default=1, help="with --loops: warps of a scheduler (default: %(default)s)"
    )
    parser.add_argument(
        "--least",
        type=int,
        default=16,
        help="with --loops: shortest loop, in instructions (default: %(default)s)",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        latency = latencies(given.latency)
        if given.loops:
            cubin = cubin_of(given.file, given.arch, Path(scratch))
            for kernel in listing.kernels(cubin):
                loops.report(kernel, given.arch, latency, given.warps, given.least)
            return
        if int(re.sub(r"\D", "", given.arch) or 0) >= 100:
            raise Problem(
                "a path runs on what sm_75 to sm_90 have: later ones keep the launch's shape elsewhere"
            )
        scenario = Scenario(given.file, ROOT)
        warp = scenario.launch.get("warp", 0) if given.warp is None else given.warp
        kernels = listing.kernels(cubin_of(given.code or scenario.source, given.arch, Path(scratch)))
        follow(scenario, pick(kernels, scenario.kernel), latency, warp, given.arch, given.verbose)


if __name__ == "__main__":
    try:
        main()
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
