"""A second NCSN++ and DDPM, written as walks over numbered layers, and files as score_sde saves them.

Song et al. 2021 (arXiv:2011.13456), appendix H; parameters are named as in the authors' files. Nothing here
is shared with invsolve: the two are compared.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Net:
    """A network small enough to test with; pyramid is "", "residual" or "skip"; ddpm: the class DDPM."""

    nf: int = 16
    mults: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[int, ...] = (1,)
    pyramid: str = "residual"
    summed: bool = False
    fourier: bool = True
    channels: int = 3
    ddpm: bool = False

    @property
    def taps(self):
        return [1.0, 3.0, 3.0, 1.0] if self.pyramid else [1.0, 1.0]


class Walk:
    """Layers in the order of the file: makes their weights where there are none, then applies them."""

    root = math.sqrt(2)  # of which sums are divided

    def __init__(self, net, state=None):
        self.net, self.making, self.at = net, state is None, 0
        self.state = {} if state is None else state
        self.rng = torch.Generator().manual_seed(0)

    def weight(self, name, *shape, centre=0.0):
        key = f"all_modules.{self.at}.{name}"
        if self.making:
            self.state[key] = centre + 0.15 * torch.randn(shape, generator=self.rng)
        return self.state[key]

    def next(self, value):
        self.at += 1
        return value

    def conv(self, x, outs, name="", size=3, centre=0.0):
        w = self.weight(f"{name}weight", outs, x.shape[1], size, size)
        return F.conv2d(x, w, self.weight(f"{name}bias", outs), padding=size // 2)

    def norm(self, x, name=""):
        c = x.shape[1]
        w = self.weight(f"{name}weight", c, centre=1.0)
        return F.group_norm(x, min(c // 4, 32), w, self.weight(f"{name}bias", c), eps=1e-6)

    def linear(self, x, outs, name=""):
        return F.linear(x, self.weight(f"{name}weight", outs, x.shape[1]), self.weight(f"{name}bias", outs))

    def filtered(self, x, gain):
        """Convolve each channel with the taps, zeros outside, full length."""
        k = torch.tensor(self.net.taps)
        k = torch.outer(k, k) / k.sum() ** 2 * gain
        c = x.shape[1]
        return F.conv2d(x, k.expand(c, 1, -1, -1), groups=c, padding=len(k) - 1)

    def half(self, x):
        pad = (len(self.net.taps) - 2 + 1) // 2
        full, start = self.filtered(x, 1.0), len(self.net.taps) - 1 - pad
        return full[..., start : start + x.shape[-2] : 2, start : start + x.shape[-1] : 2]

    def double(self, x):
        wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        wide[..., ::2, ::2] = x
        pad = (len(self.net.taps) - 2 + 1) // 2 + 1
        start = len(self.net.taps) - 1 - pad
        full = self.filtered(wide, 4.0)
        return full[..., start : start + wide.shape[-2], start : start + wide.shape[-1]]

    def block(self, x, e, outs, change=""):
        h = F.silu(self.norm(x, "GroupNorm_0."))
        resample = {"down": self.half, "up": self.double, "": lambda image: image}[change]
        h, x = resample(h), resample(x)
        h = self.conv(h, outs, "Conv_0.") + self.linear(F.silu(e), outs, "Dense_0.")[:, :, None, None]
        h = self.conv(F.silu(self.norm(h, "GroupNorm_1.")), outs, "Conv_1.")
        if x.shape[1] != outs or change:
            x = self.conv(x, outs, "Conv_2.", size=1)
        return self.next((x + h) / self.root)

    def nin(self, x, j, outs=None):
        c = x.shape[1]
        y = torch.einsum("bchw,cd->bdhw", x, self.weight(f"NIN_{j}.W", c, outs or c))
        return y + self.weight(f"NIN_{j}.b", outs or c)[:, None, None]

    def attend(self, x):
        h = self.norm(x, "GroupNorm_0.")
        q, k, v = (self.nin(h, j) for j in range(3))
        w = torch.einsum("bchw,bcij->bhwij", q, k) / math.sqrt(x.shape[1])
        w = w.flatten(3).softmax(-1).reshape(w.shape)
        h = self.nin(torch.einsum("bhwij,bcij->bchw", w, v), 3)
        return self.next((x + h) / self.root)

    def embedded(self, label):
        nf = self.net.nf
        if self.net.fourier:
            phase = self.next(label.log()[:, None] * self.weight("W", nf) * 2 * math.pi)
        else:
            phase = label[:, None] * torch.exp(-math.log(10000) * torch.arange(nf // 2) / (nf // 2 - 1))
        e = torch.cat([phase.sin(), phase.cos()], 1)
        e = self.next(self.linear(e, 4 * nf))
        return self.next(self.linear(F.silu(e), 4 * nf))

    def pyramid(self, h, small):
        """Bring the input's pyramid into the encoder."""
        if self.net.pyramid == "residual":
            w = self.weight("Conv2d_0.weight", h.shape[1], small.shape[1], 3, 3)
            wide = self.filtered(small, 1.0)[..., 1:-1, 1:-1]  # 2 zeros a side for filter and convolution
            small = F.conv2d(wide, w, stride=2) + self.weight("Conv2d_0.bias", h.shape[1])[:, None, None]
            h = small = self.next((small + h) / math.sqrt(2))
        elif self.net.pyramid == "skip":
            small = self.half(small)  # the fixed filter has no number
            h = self.next(self.conv(small, h.shape[1], "Conv.", size=1) + h)
        return h, small

    def __call__(self, x, label):
        net, self.at = self.net, 0
        e = self.embedded(label)
        small, hs = x, [self.next(self.conv(x, net.nf))]
        for level, mult in enumerate(net.mults):
            for _ in range(net.blocks):
                h = self.block(hs[-1], e, net.nf * mult)
                hs.append(self.attend(h) if level in net.attention else h)
            if level + 1 < len(net.mults):
                h = self.block(hs[-1], e, net.nf * mult, "down")
                h, small = self.pyramid(h, small)
                hs.append(h)
        h = self.block(hs[-1], e, hs[-1].shape[1])
        h = self.block(self.attend(h), e, h.shape[1])
        return self.decoded(h, hs, e)

    def decoded(self, h, hs, e):
        net, total = self.net, None
        for level in reversed(range(len(net.mults))):
            for _ in range(net.blocks + 1):
                h = self.block(torch.cat([h, hs.pop()], 1), e, net.nf * net.mults[level])
            if level in net.attention:
                h = self.attend(h)
            if net.summed:
                total = None if total is None else self.double(total)
                out = self.next(F.silu(self.norm(h)))
                out = self.next(self.conv(out, net.channels))
                total = out if total is None else total + out
            if level:
                h = self.block(h, e, h.shape[1], "up")
        if net.summed:
            return total
        return self.next(self.conv(self.next(F.silu(self.norm(h))), net.channels))


class DDPMWalk(Walk):
    """The same order of layers; 32 groups, sums as they are, and convolutions that change the resolution."""

    root = 1.0

    def norm(self, x, name=""):
        c = x.shape[1]
        w = self.weight(f"{name}weight", c, centre=1.0)
        return F.group_norm(x, 32, w, self.weight(f"{name}bias", c), eps=1e-6)

    def block(self, x, e, outs, change=""):
        if change == "up":
            return self.next(self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), outs, "Conv_0."))
        if change == "down":  # every second pixel of the convolution, from the second on
            return self.next(self.conv(x, outs, "Conv_0.")[..., 1::2, 1::2])
        h = self.conv(F.silu(self.norm(x, "GroupNorm_0.")), outs, "Conv_0.")
        h = h + self.linear(F.silu(e), outs, "Dense_0.")[:, :, None, None]
        h = self.conv(F.silu(self.norm(h, "GroupNorm_1.")), outs, "Conv_1.")
        return self.next((self.nin(x, 0, outs) if x.shape[1] != outs else x) + h)


def made(net):
    """Random weights of a network, and the function (x, label) that they are."""
    walk = DDPMWalk if net.ddpm else Walk
    state = walk(net)
    state(torch.zeros(1, net.channels, 16, 16), torch.ones(1))
    return state.state, walk(net, state.state)


def checkpoint(net, state, sigmas=None):
    """What training saves: its weights are spoilt, the averages are the ones to use."""
    sigmas = np.exp(np.linspace(math.log(50), math.log(0.01), 100)) if sigmas is None else sigmas
    model = {"module.sigmas": torch.tensor(np.asarray(sigmas))}
    model |= {f"module.{k}": v if k.endswith(".0.W") else v + 1 for k, v in state.items()}
    shadow = [v for k, v in state.items() if not k.endswith("all_modules.0.W")]
    optimizer = {"state": {0: {"step": torch.tensor(2.0), "exp_avg": torch.zeros(2)}}}
    optimizer["param_groups"] = [{"lr": np.minimum(np.float64(2e-4), 1.0), "betas": (0.9, 0.999)}]
    ema = {"decay": 0.999, "num_updates": 2, "shadow_params": shadow}
    return {"optimizer": optimizer, "model": model, "ema": ema, "step": 2}
