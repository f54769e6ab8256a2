"""The training loop.

The idea: a step is a function of the state before it, the seed and its own number. Which images it reads and
what dropout does follow from those, so that a run that was killed goes on from its last state as if nothing
had happened, and nothing but weights, averages and the optimiser's moments need be kept.
"""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import data, files
from .model import Config, PixelCNN, bits_per_dim, nats

INITIAL_IMAGES = 100  # for the initialisation from data
ENGINE_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)


@dataclass
class Options:
    """What a run is told; the command line has the same names."""

    data: str
    out: str
    held_out: str | None = None
    class_conditional: bool = False
    resnets: int = 5
    filters: int = 160
    mixtures: int = 10
    nonlinearity: str = "concat_elu"
    dropout: float = 0.5
    init: str | None = None
    steps: int | None = None
    batch: int = 64
    lr: float = 1e-3
    lr_decay: float = 0.999995
    ema: float = 0.9995
    clip_norm: float | None = None
    seed: int = 1
    device: str = "auto"
    amp: bool = False
    compile: bool = False
    log_every: int = 50
    eval_every: int = 1000
    save_every: int = 1000
    sample_every: int = 5000
    samples: int = 64


class Processes:
    """The processes that train together, each on a part of every batch: those of `torchrun`, or one."""

    def __init__(self, device: str):
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise files.FileError("device: PyTorch finds no GPU")
        self.device = torch.device(device)
        if device == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def sum(self, value: float) -> float:
        """The sum of a number of each process."""
        return self.reduce(value, dist.ReduceOp.SUM)

    def most(self, value: float) -> float:
        return self.reduce(value, dist.ReduceOp.MAX)

    def reduce(self, value: float, how: dist.ReduceOp) -> float:
        if self.size == 1:
            return value
        reduced = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, how)
        return reduced.item()


def batch_of(images: data.Images, which: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Images as the network reads them, [N, C, H, W], and their classes."""
    chosen = images[which]
    x = torch.from_numpy(chosen.pixels).to(device).permute(0, 3, 1, 2).float().contiguous()
    x = (x - 127.5) / 127.5
    return x, None if chosen.labels is None else torch.from_numpy(chosen.labels).to(device)


@lru_cache(maxsize=2)
def order_of(epoch: int, count: int, seed: int) -> np.ndarray:
    """The order in which an epoch goes through the images."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def number(*parts: int) -> int:
    """A number for a random generator, another one for other parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


@torch.no_grad()
def follow(average: PixelCNN, model: PixelCNN, step: int, decay: float) -> None:
    """The average over training goes towards the weights: by as much as `decay` leaves, and faster in the
    first steps, so that a short run's average has forgotten where it began."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


class Signals:
    """Ctrl-C and SIGTERM end a run after a step, with its state saved; a second one ends it at once."""

    def __enter__(self):
        self.received = 0
        self.before = {which: signal.signal(which, self.receive) for which in (signal.SIGINT, signal.SIGTERM)}
        return self

    def receive(self, which: int, frame: object) -> None:
        self.received = which
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for which, handler in self.before.items():
            signal.signal(which, handler)


class Trainer:
    def __init__(self, options: Options, resume: bool):
        self.options, self.run = options, Path(options.out)
        state = files.load_state(self.run)
        if state and not resume:
            raise files.FileError(
                f"{self.run}: holds a run already: go on with --resume, or give another directory"
            )
        self.processes = Processes(options.device)
        self.device, self.first = self.processes.device, self.processes.rank == 0
        self.images, self.held_out = data.split(
            options.data, options.held_out, options.class_conditional, options.seed
        )
        whole_batch = options.batch * self.processes.size
        self.steps_an_epoch = len(self.images) // whole_batch
        if not self.steps_an_epoch:
            raise data.DataError(
                f"{options.data}: {len(self.images)} images to train on, and a batch is {whole_batch}"
            )
        self.shape = [self.images.pixels.shape[3], *self.images.pixels.shape[1:3]]
        config = Config(
            options.resnets,
            options.filters,
            options.mixtures,
            self.shape[0],
            self.images.classes,
            options.nonlinearity,
        )
        torch.manual_seed(options.seed)
        self.model = PixelCNN(config, options.dropout).to(self.device)
        self.step = self.saved = 0
        # The nats of the steps since the last line of the log.
        self.total, self.count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        if state:
            if files.config_of(state) != config:
                found = " ".join(f"{key} {value}" for key, value in state["config"].items())
                raise files.FileError(
                    f"{self.run}: holds a run of another model ({found}) than the options and data"
                )
            self.model.load_state_dict(state["model"])
            self.step = self.saved = state["step"]
            self.count = state["count"]
            self.total.fill_(state["total"])
        elif options.init:
            files.begin_from(Path(options.init), self.model)
        else:
            first = order_of(0, len(self.images), options.seed)[:INITIAL_IMAGES]
            self.model.initialise(*batch_of(self.images, first, self.device))

        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=options.lr, betas=(0.95, 0.9995), fused=True
        )
        if state:
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        # What is called: the same model, wrapped.
        self.network = self.model
        if self.processes.size > 1:
            self.network = torch.nn.parallel.DistributedDataParallel(self.model)
        if options.compile:
            self.network = torch.compile(self.network)
        if self.first:
            self.run.mkdir(parents=True, exist_ok=True)
            files.keep_log(self.run, self.step)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.options.amp else nullcontext()

    def train_step(self) -> Tensor:
        """One step; the mean nats of its images."""
        options, processes = self.options, self.processes
        epoch, place = divmod(self.step, self.steps_an_epoch)
        order = order_of(epoch, len(self.images), options.seed)
        begin = (place * processes.size + processes.rank) * options.batch
        x, classes = batch_of(self.images, order[begin : begin + options.batch], self.device)
        torch.manual_seed(number(options.seed, self.step, processes.rank))
        for group in self.optimiser.param_groups:
            group["lr"] = options.lr * options.lr_decay**self.step

        self.optimiser.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.network(x, classes)
        loss = nats(x, logits).mean()
        loss.backward()
        if options.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.optimiser.step()
        follow(self.average, self.model, self.step, options.ema)
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Bits per dimension of the averaged weights on the images that are held out."""
        processes, batch = self.processes, self.options.batch
        own = np.arange(processes.rank, len(self.held_out), processes.size)
        total = 0.0
        for begin in range(0, len(own), batch):
            x, classes = batch_of(self.held_out, own[begin : begin + batch], self.device)
            total += nats(x, self.average(x, classes).double()).sum().item()
        return bits_per_dim(processes.sum(total) / len(self.held_out), self.shape)

    def refuse_unless_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            state = f"the last state is of step {self.saved}" if self.saved else "no state was saved"
            hint = "a lower lr or a clip_norm may help"
            raise files.FileError(f"step {self.step}: the loss is {loss}: {hint}; {state}")

    def save(self) -> None:
        total = self.processes.sum(self.total.item()) / self.processes.size
        self.refuse_unless_finite(total)
        # The last step's update has shown in no loss yet.
        if not all(weights.isfinite().all() for weights in self.model.parameters()):
            self.refuse_unless_finite(math.nan)
        self.saved = self.step
        if self.first:
            files.save_weights(self.run, self.average)
            files.save_state(
                self.run,
                {
                    "step": self.step,
                    "total": total,
                    "count": self.count,
                    "options": asdict(self.options),
                    "config": self.model.config.as_dict(),
                    "model": self.model.state_dict(),
                    "average": self.average.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                },
            )

    def sample(self) -> None:
        """A grid of images that the engine makes of the weights as they are saved."""
        if not self.first:
            return
        try:
            from fast_pixel_cnn import load
        except ImportError:
            self.log({"note": "no grid: the engine is not built into this package"})
            return
        files.save_weights(self.run, self.average)
        count, classes = self.options.samples, self.images.classes
        columns = classes if 0 < classes <= count else math.ceil(math.sqrt(count))
        labels = np.arange(count) % classes if classes else None
        try:
            engine = load(self.run / files.WEIGHTS)
            images = engine.sample(count, seed=self.options.seed, classes=labels, size=tuple(self.shape[1:]))
        except ENGINE_ERRORS as error:
            # Training is worth more than a picture of it.
            self.log({"note": f"no grid: {error}"})
            return
        files.save_grid(self.run, f"samples/{self.step:07}.png", images, columns)

    def log(self, entry: dict[str, object]) -> None:
        if self.first:
            line = json.dumps({"step": self.step, **entry})
            print(line, flush=True)
            with open(self.run / files.LOG, "a") as log:
                log.write(line + "\n")

    def train(self) -> int:
        """Trains until the last step or a signal; the exit status."""
        with Signals() as signals:
            status = self.until_stopped(signals)
        if dist.is_initialized():
            dist.destroy_process_group()
        return status

    def until_stopped(self, signals: Signals) -> int:
        options, processes = self.options, self.processes
        steps, seconds = 0, 0.0
        last = options.steps if options.steps is not None else sys.maxsize

        def due(every: int) -> bool:
            return every > 0 and (self.step % every == 0 or self.step == last)

        while self.step < last:
            begin = time.perf_counter()
            self.total += self.train_step().double()
            self.count += 1
            told = due(options.log_every)
            if told:
                mean = processes.sum(self.total.item()) / (self.count * processes.size)
            seconds += time.perf_counter() - begin
            steps += 1
            if told:
                self.refuse_unless_finite(mean)
                self.log(
                    {
                        "epoch": round(self.step / self.steps_an_epoch, 3),
                        "bits_per_dim": bits_per_dim(mean, self.shape),
                        "lr": self.optimiser.param_groups[0]["lr"],
                        "images_per_second": round(steps * options.batch * processes.size / seconds, 1),
                    }
                )
                self.total.zero_()
                self.count = steps = 0
                seconds = 0.0
            if due(options.eval_every):
                self.log({"held_out_bits_per_dim": self.evaluate()})
            if due(options.save_every):
                self.save()
            if due(options.sample_every):
                self.sample()
            # Several processes stop together, where they meet anyway.
            if processes.size == 1:
                stopped = signals.received
            else:
                stopped = int(processes.most(signals.received)) if told else 0
            if stopped:
                self.save()
                return 128 + stopped
        return 0
