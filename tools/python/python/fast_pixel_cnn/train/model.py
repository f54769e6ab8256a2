"""PixelCNN++ in PyTorch, as the engine computes it, and the likelihood of its images.

The idea: an image is read by two streams. `u` sees the rows above a pixel, `ul` those and the pixels to its
left; each convolution is padded so that it cannot see further, and nothing is masked. An up pass fills two
lists, a down pass empties them again. Modules bear the names of pclucas14/pixel-cnn-pp, which many people's
checkpoints have.

Tensors are [batch, channels, height, width]; images hold 2 * byte / 255 - 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """The numbers that tell one PixelCNN++ from another, under the names that the engine reads."""

    nr_resnet: int = 5  # gated resnets for each stage
    nr_filters: int = 160  # channels of each hidden layer
    nr_logistic_mix: int = 10  # logistics in the mixture
    nr_channels: int = 3  # of an image: 3, or 1 for gray
    num_classes: int = 0  # 0: not conditional
    nonlinearity: str = "concat_elu"  # or elu, relu

    @property
    def logits(self) -> int:
        """How many numbers tell the distribution of a pixel."""
        return self.nr_logistic_mix * (10 if self.nr_channels == 3 else 3)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def concat_elu(x: Tensor) -> Tensor:
    return F.elu(torch.cat([x, -x], dim=1), inplace=True)


# Each with how many channels it makes of one.
NONLINEARITIES = {"concat_elu": (concat_elu, 2), "elu": (F.elu, 1), "relu": (F.relu, 1)}


def dropped(x: Tensor, probability: float) -> Tensor:
    """Dropout. On a processor, where drawing the numbers one by one takes a seventh of a step, each decision
    is made by a byte of a random word, and the probability is a multiple of 1/256."""
    if x.is_cuda or torch.compiler.is_compiling():
        return F.dropout(x, probability)
    bound = max(1, min(255, round(256 * probability)))
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= bound
    return x * kept.to(x.dtype).mul_(256 / (256 - bound))


class Normed(nn.Module):
    """A kernel under weight normalisation, and a bias: each output channel is `g * v / |v|`."""

    out_axis = 0

    def __init__(self, inputs: int, outputs: int, *size: int):
        super().__init__()
        shape = [outputs, inputs, *size] if self.out_axis == 0 else [inputs, outputs, *size]
        ones = [outputs if axis == self.out_axis else 1 for axis in range(len(shape))]
        self.weight_v = nn.Parameter(0.05 * torch.randn(shape))
        self.weight_g = nn.Parameter(torch.ones(ones))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # While the model is initialised: the standard deviation that the output shall have.
        self.init_scale: float | None = None

    def weight(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, self.out_axis)

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """Takes a kernel as it is: its direction and its norm."""
        axes = [axis for axis in range(weight.dim()) if axis != self.out_axis]
        self.weight_v.copy_(weight)
        self.weight_g.copy_(torch.linalg.vector_norm(weight, dim=axes, keepdim=True))

    def apply_kernel(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.apply_kernel(x)
        return y if self.init_scale is None else self.normalised(y, self.init_scale)

    @torch.no_grad()
    def normalised(self, y: Tensor, init_scale: float) -> Tensor:
        """Initialisation from data: sets gain and bias such that `y` would have mean 0 and the given
        deviation."""
        variance, mean = torch.var_mean(y, dim=[0, 2, 3], correction=0)
        scale = init_scale / torch.sqrt(variance + 1e-10)
        self.weight_g.mul_(scale.view_as(self.weight_g))
        self.bias.sub_(mean).mul_(scale)
        return (y - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)


class Conv(Normed):
    """A convolution, without padding."""

    stride = 1

    def apply_kernel(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, stride=self.stride)


class Deconv(Normed):
    """A transposed convolution of stride 2, whose output is cut to twice its input's size."""

    out_axis = 1

    def apply_kernel(self, x: Tensor) -> Tensor:
        side = (self.weight_v.shape[3] - 1) // 2
        return F.conv_transpose2d(
            x, self.weight(), self.bias, stride=2, padding=(0, side), output_padding=(0, side)
        )


class Dense(Normed):
    """The same matrix at every pixel."""

    def apply_kernel(self, x: Tensor) -> Tensor:
        # A convolution of size 1 would do; on a processor this takes half the time of it.
        every = self.weight().expand(len(x), -1, -1)
        return torch.baddbmm(self.bias[:, None], every, x.flatten(2)).unflatten(2, x.shape[2:])


class Shifted(nn.Module):
    """A convolution that reads rows up to its own: in `u` columns on both sides, in `ul` columns up to its
    own."""

    def __init__(
        self, stream: str, inputs: int, outputs: int, size: list[int] | None = None, stride: int = 1
    ):
        super().__init__()
        height, width = size or ([2, 3] if stream == "u" else [2, 2])
        self.conv = Conv(inputs, outputs, height, width)
        self.conv.stride = stride
        left, right = (width // 2, width // 2) if stream == "u" else (width - 1, 0)
        self.padding = [left, right, height - 1, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class Upsized(nn.Module):
    """Between the stages of the down pass."""

    def __init__(self, stream: str, filters: int):
        super().__init__()
        self.deconv = Deconv(filters, filters, 2, 3 if stream == "u" else 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.deconv(x)


class Nin(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.lin_a = Dense(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin_a(x)


class GatedResnet(nn.Module):
    """Two convolutions around a nonlinearity; what is skipped to goes into the first, a gate follows the
    second."""

    def __init__(self, config: Config, stream: str, skips: int, dropout: float):
        super().__init__()
        n = config.nr_filters
        self.act, copies = NONLINEARITIES[config.nonlinearity]
        self.conv_input = Shifted(stream, copies * n, n)
        if skips:
            self.nin_skip = Nin(copies * n * skips, n)
        self.conv_out = Shifted(stream, copies * n, 2 * n)
        if config.num_classes:
            self.class_term = nn.Embedding(config.num_classes, 2 * n)
            nn.init.normal_(self.class_term.weight, std=0.05)
        self.dropout = dropout

    def forward(self, x: Tensor, skip: Tensor | None, classes: Tensor | None) -> Tensor:
        c = self.conv_input(self.act(x))
        if skip is not None:
            c = c + self.nin_skip(self.act(skip))
        c = self.act(c)
        if self.training and self.dropout:
            c = dropped(c, self.dropout)
        c = self.conv_out(c)
        if classes is not None:
            c = c + self.class_term(classes)[:, :, None, None]
        return x + F.glu(c, dim=1)  # the first half times the sigmoid of the second


class Stage(nn.Module):
    """The resnets of one resolution, on the way up or down."""

    def __init__(self, config: Config, resnets: int, skips: int, dropout: float):
        super().__init__()
        self.u_stream = nn.ModuleList([GatedResnet(config, "u", skips, dropout) for _ in range(resnets)])
        self.ul_stream = nn.ModuleList(
            [GatedResnet(config, "ul", skips + 1, dropout) for _ in range(resnets)]
        )


class PixelCNN(nn.Module):
    def __init__(self, config: Config, dropout: float = 0.5):
        super().__init__()
        self.config = config
        n, r, inputs = config.nr_filters, config.nr_resnet, config.nr_channels + 1
        self.u_init = Shifted("u", inputs, n, [2, 3])
        self.ul_init = nn.ModuleList([Shifted("u", inputs, n, [1, 3]), Shifted("ul", inputs, n, [2, 1])])
        self.up_layers = nn.ModuleList([Stage(config, r, 0, dropout) for _ in range(3)])
        self.downsize_u_stream = nn.ModuleList([Shifted("u", n, n, stride=2) for _ in range(2)])
        self.downsize_ul_stream = nn.ModuleList([Shifted("ul", n, n, stride=2) for _ in range(2)])
        self.down_layers = nn.ModuleList([Stage(config, k, 1, dropout) for k in [r, r + 1, r + 1]])
        self.upsize_u_stream = nn.ModuleList([Upsized("u", n) for _ in range(2)])
        self.upsize_ul_stream = nn.ModuleList([Upsized("ul", n) for _ in range(2)])
        self.nin_out = Nin(n, config.logits)

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Images [N, C, H, W] and their classes [N] -> logits [N, L, H, W], each pixel's from those before
        it."""
        x = F.pad(
            x, [0, 0, 0, 0, 0, 1], value=1.0
        )  # a channel that is 1 within the image and 0 in the padding
        us = [down(self.u_init(x))]
        uls = [down(self.ul_init[0](x)) + right(self.ul_init[1](x))]
        for stage, layers in enumerate(self.up_layers):
            if stage > 0:
                us.append(self.downsize_u_stream[stage - 1](us[-1]))
                uls.append(self.downsize_ul_stream[stage - 1](uls[-1]))
            for u_resnet, ul_resnet in zip(layers.u_stream, layers.ul_stream):
                us.append(u_resnet(us[-1], None, classes))
                uls.append(ul_resnet(uls[-1], us[-1], classes))

        u, ul = us.pop(), uls.pop()
        for stage, layers in enumerate(self.down_layers):
            if stage > 0:
                u = self.upsize_u_stream[stage - 1](u)
                ul = self.upsize_ul_stream[stage - 1](ul)
            for u_resnet, ul_resnet in zip(layers.u_stream, layers.ul_stream):
                u = u_resnet(u, us.pop(), classes)
                ul = ul_resnet(ul, torch.cat([u, uls.pop()], dim=1), classes)
        return self.nin_out(F.elu(ul))

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """The arrays that the engine reads, by name: kernels with their norms multiplied in, biases, class
        terms."""
        arrays = {}
        for name, module in self.named_modules():
            if isinstance(module, Normed):
                arrays[f"{name}.weight"] = module.weight()
                arrays[f"{name}.bias"] = module.bias
            elif isinstance(module, nn.Embedding):
                arrays[f"{name}.weight"] = module.weight
        return {name: array.detach().float().cpu().contiguous() for name, array in arrays.items()}

    @torch.no_grad()
    def initialise(self, x: Tensor, classes: Tensor | None = None) -> None:
        """Initialisation from data (Salimans and Kingma 2016): every layer's outputs have mean 0 and
        deviation 1 on these images, those before a gate deviation 0.1, so that a resnet begins as nearly the
        identity."""
        kernels = {name: module for name, module in self.named_modules() if isinstance(module, Normed)}
        for name, kernel in kernels.items():
            kernel.init_scale = 0.1 if name.endswith("conv_out.conv") else 1.0
        self(x, classes)
        for kernel in kernels.values():
            kernel.init_scale = None


def down(x: Tensor) -> Tensor:
    """Moves rows down by one."""
    return F.pad(x[:, :, :-1, :], [0, 0, 1, 0])


def right(x: Tensor) -> Tensor:
    """Moves columns right by one."""
    return F.pad(x[:, :, :, :-1], [1, 0, 0, 0])


def nats(x: Tensor, logits: Tensor) -> Tensor:
    """How unlikely each image [N, C, H, W] is under the logits [N, L, H, W]: minus its log-likelihood, [N].

    The distribution of a byte is a mixture of logistics, cut at the middle between bytes. All channels of a
    pixel share the component; the means of green and blue depend on the values of the channels before.
    """
    channels, rgb = x.shape[1], x.shape[1] == 3
    m = logits.shape[1] // (10 if rgb else 3)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    x = x.unsqueeze(2)  # [N, C, 1, H, W]
    mixture, rest = logits[:, :m], logits[:, m:].unflatten(1, (channels, -1, m))
    mean, log_scale = rest[:, :, 0], rest[:, :, 1].clamp(min=-7.0)  # [N, C, m, H, W]
    if rgb:
        red, green = x[:, 0], x[:, 1]
        a, b, c = torch.tanh(rest[:, :, 2]).unbind(1)
        mean = mean + torch.stack([torch.zeros_like(a), a * red, b * red + c * green], dim=1)
    inverse = torch.exp(-log_scale)
    centred = x - mean
    upper, lower = inverse * (centred + 1 / 255), inverse * (centred - 1 / 255)
    mass = torch.sigmoid(upper) - torch.sigmoid(lower)
    # Where rounding leaves nothing of the mass: the density in the middle times the width.
    middle = inverse * centred
    density = middle - log_scale - 2 * F.softplus(middle) - math.log(127.5)
    inside = torch.where(mass > 1e-5, torch.log(mass.clamp(min=1e-12)), density)
    log_mass = torch.where(x > 0.999, -F.softplus(lower), inside)
    log_mass = torch.where(x < -0.999, upper - F.softplus(upper), log_mass)
    log_pixel = torch.logsumexp(torch.log_softmax(mixture, dim=1) + log_mass.sum(1), dim=1)  # [N, H, W]
    return -log_pixel.sum([1, 2])


def bits_per_dim(nats_per_image: float, shape: list[int]) -> float:
    """Bits for each byte of images [.., C, H, W]."""
    return nats_per_image / (math.log(2.0) * math.prod(shape[-3:]))
