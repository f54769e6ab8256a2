"""The command line of the trainer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """
data:
  a directory of PNG or JPEG files, of one size; with --class-conditional each subdirectory is a class
  FILE.npy: bytes [N, H, W, 3], or [N, H, W] for gray images
  FILE.npz: `images` like that, and for --class-conditional `labels` [N], from 0
  cifar10, mnist: where torchvision is installed
  Height and width are multiples of 4. All images are kept in memory, as bytes.

what lies in RUN:
  model.safetensors   the weights, averaged over training, and
  config.json         what model they are of: `generate -c RUN` and fast_pixel_cnn.load("RUN") take them
  log.jsonl           one JSON object for each line that was printed
  samples/            grids of images that the engine made
  state/latest.pt     what --resume goes on from: copy RUN without it to give a model away

examples:
  python -m fast_pixel_cnn.train --data pictures/ --out runs/first
  python -m fast_pixel_cnn.train --out runs/first --resume
  python -m fast_pixel_cnn.train --data digits.npz --class-conditional --out runs/digits \\
      --resnets 2 --filters 32 --mixtures 5 --steps 5000
  torchrun --nproc-per-node 8 -m fast_pixel_cnn.train --data cifar10 --out runs/cifar --batch 16 --amp

Images held out are scored by the averaged weights, in bits per dimension, as `evaluate` does. Ctrl-C and
SIGTERM save the state and end the run (status 130, 143).
"""


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m fast_pixel_cnn.train",
        description="Trains a PixelCNN++ on images, for the engine to generate from.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )

    def positive(kind, most=None, zero=False):
        expected = f"a number {'from' if zero else 'above'} 0" + ("" if most is None else f" to {most}")

        def parse(text):
            value = kind(text)
            if value < 0 or (value == 0 and not zero) or (most is not None and value > most):
                raise argparse.ArgumentTypeError(f"expected {expected}, found {text}")
            return value

        parse.__name__ = kind.__name__
        return parse

    def fraction(text):
        value = float(text)
        if not 0 <= value < 1:
            raise argparse.ArgumentTypeError(f"expected a number from 0 and below 1, found {text}")
        return value

    group = out.add_argument_group("what to train on, and where to")
    group.add_argument("--data", metavar="DATA", help="the images: see below")
    group.add_argument("--out", metavar="RUN", required=True, help="the directory to write to")
    group.add_argument(
        "--held-out",
        metavar="N|DATA",
        help="how many of the images are not trained on but scored, or others for that [one in twenty, "
        "at most 1000; the test images of cifar10 and mnist]",
    )
    group.add_argument("--class-conditional", action="store_true", help="learn each class of the data apart")
    group.add_argument(
        "--resume",
        action="store_true",
        default=False,
        help="go on with the run in RUN, if there is one; options not given are as they were",
    )
    group.add_argument(
        "--init",
        metavar="FILE",
        help="begin with these weights: an earlier RUN, or a file of pclucas14/pixel-cnn-pp",
    )

    group = out.add_argument_group("the model; the paper's by default (53.7 million parameters)")
    group.add_argument(
        "--resnets", metavar="R", type=positive(int, 100), help="gated resnets for each stage [5]"
    )
    group.add_argument(
        "--filters", metavar="N", type=positive(int, 10_000), help="channels of each layer [160]"
    )
    group.add_argument(
        "--mixtures", metavar="M", type=positive(int, 1000), help="logistics in the mixture [10]"
    )
    group.add_argument("--nonlinearity", choices=["concat_elu", "elu", "relu"], help="[concat_elu]")
    group.add_argument("--dropout", metavar="P", type=fraction, help="how much of a resnet is dropped [0.5]")

    group = out.add_argument_group("the optimiser: Adam (0.95, 0.9995)")
    group.add_argument(
        "--steps", metavar="N", type=positive(int), help="end after step N [when it is stopped]"
    )
    group.add_argument(
        "--batch", metavar="N", type=positive(int), help="images of a step, for each process [64]"
    )
    group.add_argument("--lr", metavar="X", type=positive(float), help="learning rate [0.001]")
    group.add_argument(
        "--lr-decay",
        metavar="X",
        type=positive(float, 1),
        help="by what it is multiplied each step [0.999995]",
    )
    group.add_argument(
        "--ema",
        metavar="X",
        type=fraction,
        help="how slowly the averages follow the weights [0.9995]; faster in the first steps",
    )
    group.add_argument(
        "--clip-norm",
        metavar="X",
        type=positive(float),
        help="the longest that a gradient (of an image's nats) may be [no limit]",
    )
    group.add_argument(
        "--seed", metavar="N", type=positive(int, zero=True), help="of everything that is random [1]"
    )

    group = out.add_argument_group("the machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], help="[auto]")
    group.add_argument("--amp", action="store_true", help="mixed precision: convolutions in bfloat16")
    group.add_argument("--compile", action="store_true", help="torch.compile")

    group = out.add_argument_group("how often, in steps; 0 for never, and a last time at the last step")
    every = positive(int, zero=True)
    group.add_argument("--log-every", metavar="N", type=positive(int), help="a line of JSON [50]")
    group.add_argument("--eval-every", metavar="N", type=every, help="score the images held out [1000]")
    group.add_argument("--save-every", metavar="N", type=positive(int), help="save weights and state [1000]")
    group.add_argument(
        "--sample-every", metavar="N", type=every, help="a grid of images, made by the engine [5000]"
    )
    group.add_argument(
        "--samples", metavar="N", type=positive(int), help="how many images are in a grid [64]"
    )
    return out


def main(arguments: list[str] | None = None) -> int:
    """Runs the program, by default with its own arguments; the exit status."""
    given = vars(parser().parse_args(arguments))
    resume = given.pop("resume")
    try:
        from . import data, files, loop
    except ImportError as error:
        print(
            f'error: {error}: training needs what pip install "./tools/python[train]" brings', file=sys.stderr
        )
        return 2

    try:
        state = files.load_state(Path(given["out"])) if resume else None
        before = {} if state is None else state["options"]
        options = {**before, **given}
        if "data" not in options:
            raise data.DataError(
                "nothing to train on: give --data" + (f" ({given['out']} holds no run yet)" if resume else "")
            )
        return loop.Trainer(loop.Options(**options), resume).train()
    except (data.DataError, files.FileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
