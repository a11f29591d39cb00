"""A second ADM, written as functions of a state_dict, to compare invsolve's with.

Dhariwal and Nichol 2021 (arXiv:2105.05233): the step's sinusoids, residual blocks, attention by heads; names
as in the authors' files. Nothing here is shared with invsolve.
"""

import math

import torch
import torch.nn.functional as F


class Reference:
    """F(x, step) of the weights in a state_dict; heads and their order as told."""

    def __init__(self, state, channels, heads=1, new=False):
        self.state, self.channels, self.heads, self.new = state, channels, heads, new

    def has(self, name):
        return f"{name}.weight" in self.state

    def conv(self, name, x, **how):
        w = self.state[f"{name}.weight"]
        call = F.conv2d if w.ndim == 4 else F.conv1d
        return call(x, w, self.state[f"{name}.bias"], **how)

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name, x):
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def residual(self, name, x, e, change=""):
        resample = {
            "half": lambda image: F.avg_pool2d(image, 2),
            "double": lambda image: image.repeat_interleave(2, 2).repeat_interleave(2, 3),
            "": lambda image: image,
        }[change]
        h = resample(F.silu(self.norm(f"{name}.in_layers.0", x)))
        h = self.conv(f"{name}.in_layers.2", h, padding=1)
        told = self.linear(f"{name}.emb_layers.1", F.silu(e))[:, :, None, None]
        c = h.shape[1]
        if told.shape[1] == 2 * c:
            h = self.norm(f"{name}.out_layers.0", h) * (1 + told[:, :c]) + told[:, c:]
        else:
            h = self.norm(f"{name}.out_layers.0", h + told)
        h = self.conv(f"{name}.out_layers.3", F.silu(h), padding=1)
        x = resample(x)
        skip = f"{name}.skip_connection"
        return h + (self.conv(skip, x) if self.has(skip) else x)

    def attention(self, name, x):
        b, c, n = len(x), x.shape[1], x.shape[1] // self.heads
        flat = x.flatten(2)
        mixed = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", flat))
        out = []
        for head in range(self.heads):
            if self.new:
                q, k, v = (mixed[:, j * c + head * n : j * c + (head + 1) * n] for j in range(3))
            else:
                start = 3 * n * head
                q, k, v = (mixed[:, start + j * n : start + (j + 1) * n] for j in range(3))
            w = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(n), -1)
            out.append(torch.einsum("bts,bcs->bct", w, v))
        return (flat + self.conv(f"{name}.proj_out", torch.cat(out, 1))).reshape(b, c, *x.shape[2:])

    def layer(self, name, x, e, change):
        """Whatever carries weights of that name."""
        if self.has(f"{name}.qkv"):
            return self.attention(name, x)
        if self.has(f"{name}.in_layers.2"):
            return self.residual(name, x, e, change)
        if self.has(f"{name}.op"):
            return self.conv(f"{name}.op", x, stride=2, padding=1)
        if self.has(f"{name}.conv"):
            return self.conv(f"{name}.conv", F.interpolate(x, scale_factor=2.0), padding=1)
        return self.conv(name, x, padding=1)

    def __call__(self, x, step, label=None, *, blocks, levels):
        phase = step[:, None] / 10000 ** (torch.arange(self.channels // 2) / (self.channels // 2))
        e = torch.cat([phase.cos(), phase.sin()], 1)
        e = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", e)))
        if label is not None:
            e = e + self.state["label_emb.weight"][label]
        hs, total = [], levels * (blocks + 1)
        for i in range(total):
            change = "half" if i and i % (blocks + 1) == 0 else ""
            count = self.count(f"input_blocks.{i}")
            if not count:
                x = F.avg_pool2d(x, 2)
            for j in range(count):
                x = self.layer(f"input_blocks.{i}.{j}", x, e, change)
            hs.append(x)
        for j in range(3):
            x = self.layer(f"middle_block.{j}", x, e, "")
        for i in range(total):
            x, side = torch.cat([x, hs.pop()], 1), x.shape[-1]
            for j in range(self.count(f"output_blocks.{i}")):
                x = self.layer(f"output_blocks.{i}.{j}", x, e, "double" if j else "")
            last = (i + 1) % (blocks + 1) == 0 and i + 1 < total
            if last and x.shape[-1] == side:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.conv("out.2", F.silu(self.norm("out.0", x)), padding=1)

    def count(self, name):
        """Layers with weights inside a block."""
        return len({key[len(name) + 1 :].split(".")[0] for key in self.state if key.startswith(f"{name}.")})
