"""The training loop: one generator of steps, on one process or several.

Each step draws its crops, noise levels and noise from (seed, step, rank), so on a CPU a resumed run repeats
what a killed one lost. Several processes average their gradients, one flat vector, by an all-reduce. On a
CPU two single-thread processes do nearly twice the work of one, where one process of two threads does not.

With `optimizer = "muon"` the inner convolutions, as matrices (out, in * height * width), take orthogonalised
steps (Jordan et al. 2024, in torch.optim) of the root mean square that AdamW's would have; AdamW moves the
rest. On the photo prior a step costs an eighth more.

The learning rate is a function of the share of the budget spent, the larger of images seen / images and
seconds / total seconds: warm-up, flat, then a cosine to zero. Changing the budget on resume bends the rest
of the curve, so every slice can end with weights worth shipping.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from invsolve.device import mixed_precision
from invsolve.errors import Divergence
from invsolve.training import checkpoint
from invsolve.training.config import TrainingConfig
from invsolve.training.ema import average_weights
from invsolve.training.group import agreed, average
from invsolve.training.kinds import KINDS, Task

__all__ = ["Report", "Run", "learning_rate", "steps"]


@dataclass(frozen=True)
class Report:
    """What one step did: loss of the first process, learning rate, and the share of the budget spent."""

    step: int
    images: int
    seconds: float
    share: float
    rate: float
    loss: float


class Run:
    """The state of a training run: the network, its moving average, the optimiser and the counters."""

    def __init__(self, config: TrainingConfig, device: str = "cpu") -> None:
        """Start from random weights that depend on the seed alone."""
        self.config, self.device = config, torch.device(device)
        self.network = self.build(config.seed)
        self.vector, self.gradient = checkpoint.flat(list(self.network.parameters()))
        self.average = self.vector.clone()
        self.parameter = torch.nn.Parameter(self.vector)
        self.parameter.grad = self.gradient
        self.optimizer = torch.optim.AdamW([self.parameter], config.rate, betas=(0.9, 0.99))
        self.matrices = matrices(self.network) if config.optimizer == "muon" else {}
        self.muon = muon(list(self.matrices.values()), config.rate) if self.matrices else None
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.began_with: object = None  # what a card calls the weights it began with; None for random ones

    def build(self, seed: int = 0) -> nn.Module:
        """Make the network that the config describes, where it is trained."""
        return KINDS[self.config.kind].build(self.config.architecture, seed).to(self.device)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into tensors under the parameters' names."""
        named = list(self.network.named_parameters())
        pieces = torch.split(vector, [p.numel() for _, p in named])
        return {name: piece.view(p.shape).clone() for (name, p), piece in zip(named, pieces, strict=True)}

    def averaged(self) -> nn.Module:
        """Build a network from the averaged weights."""
        network = self.build()
        network.load_state_dict(self.named(self.average))
        return network.requires_grad_(False)

    def parts(self) -> checkpoint.Tensors:
        """Everything a checkpoint holds besides the counters."""
        moments = {k: v.reshape(-1) for k, v in self.optimizer.state[self.parameter].items()}
        if self.muon:
            state = self.muon.state
            moments |= {
                f"muon.{k}": state[p]["momentum_buffer"] for k, p in self.matrices.items() if p in state
            }
        return {"weights": self.named(self.vector), "average": self.named(self.average), "optimizer": moments}

    def start_from(self, network: nn.Module) -> None:
        """Begin with the weights of another run, which must have the same architecture."""
        weights = network.state_dict()
        self.vector.copy_(torch.cat([weights[k].reshape(-1) for k, _ in self.network.named_parameters()]))
        self.average.copy_(self.vector)

    def update(self, rate: float) -> None:
        """Move the weights by one step of the gradient that is in place."""
        if self.muon:
            self.muon.param_groups[0]["lr"] = rate
            self.muon.step()  # type: ignore[no-untyped-call]  # torch ships it unannotated
            for matrix in self.matrices.values():
                assert matrix.grad is not None, "matrices are made with their gradients"
                matrix.grad.zero_()  # AdamW's share of these is the weight decay
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def restore(self, parts: checkpoint.Tensors) -> None:
        """Take the tensors of a checkpoint."""
        for vector, name in ((self.vector, "weights"), (self.average, "average")):
            vector.copy_(torch.cat([parts[name][k].reshape(-1) for k, _ in self.network.named_parameters()]))
        moments = parts["optimizer"]
        for name, matrix in self.matrices.items():
            if self.muon and f"muon.{name}" in moments:
                self.muon.state[matrix] = {"momentum_buffer": moments[f"muon.{name}"].to(self.device)}
        own = {k: v for k, v in moments.items() if not k.startswith("muon.")}
        adamw = {k: v[0] if k == "step" else v.to(self.device) for k, v in own.items()}
        self.optimizer.state[self.parameter] = adamw


def matrices(network: nn.Module) -> dict[str, torch.nn.Parameter]:
    """View the weights of the inner convolutions, and their gradients, as matrices (out, in * area)."""
    found = {}
    for name, p in network.named_parameters():
        if p.ndim == 4 and not name.startswith(("entry", "head")):
            assert p.grad is not None, "the flat gradient is made before"
            found[name] = torch.nn.Parameter(p.data.view(len(p), -1))
            found[name].grad = p.grad.view(len(p), -1)
    return found


def muon(parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.Muon:
    """Muon with steps of the size of AdamW's, so that both share one learning rate."""
    return torch.optim.Muon(parameters, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")


def learning_rate(step: int, share: float, config: TrainingConfig) -> float:
    """Warm up over the first steps, stay flat, then fall as a half cosine to 0 at share 1."""
    fall = max(share - config.flat, 0) / (1 - config.flat)
    return config.rate * min(1, (step + 1) / config.warm_up) * 0.5 * (1 + math.cos(math.pi * min(fall, 1)))


def gradient_step(run: Run, task: Task, rank: int) -> float:
    """Compute the loss of this process's batch and the averaged, clipped gradient."""
    config = run.config
    draw = np.random.default_rng([config.seed, run.step, rank])
    run.gradient.zero_()
    with mixed_precision(run.device):
        loss = task.loss(run.network, run.step, draw)
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it unannotated
    average(run.gradient)
    length = run.gradient.norm().item()
    if not math.isfinite(length):  # the mean over the processes: all of them stop at this step
        raise Divergence(
            f"the gradient became {length} at step {run.step}, with the loss {loss.item():.3g}. "
            "A smaller rate usually cures this."
        )
    run.gradient *= min(1.0, config.clip / (length + 1e-12))
    return loss.item()


def steps(run: Run, task: Task, rank: int = 0, world: int = 1) -> Iterator[Report]:
    """Train until the budget is spent; one report a step."""
    config, begun, before = run.config, time.monotonic(), run.seconds
    while True:
        run.seconds = before + time.monotonic() - begun
        share = max(run.images / config.images, run.seconds / config.seconds if config.seconds else 0)
        share = agreed(share)
        if share >= 1:
            return
        rate = learning_rate(run.step, share, config)
        loss = gradient_step(run, task, rank)
        run.update(rate)
        average_weights(run.average, run.vector, run.step, config.average)
        run.step, run.images = run.step + 1, run.images + config.batch * world
        yield Report(run.step, run.images, run.seconds, share, rate, loss)
