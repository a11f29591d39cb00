"""Class-conditional digits: three ways to use a classifier, beside each other.

    python benchmarks/digits.py MNIST [--samples 20] [--steps 40] [--seed 0] [--prior digits]
        [--classifier digits] [--networks FOLDER] [--held 500] [--only NAME ...]

MNIST is a folder with train-images-idx3-ubyte and train-labels-idx1-ubyte, perhaps .gz. Its last 5,000 images
are held out: neither the prior nor any classifier has seen them. Two classifiers of clean images are trained
here (a small LeNet each, one minute; kept in --networks): A guides in the ways that need a clean classifier,
B judges and guides nobody.

First table, on held-out digits with noise of three levels ([0, 1] units): accuracy of p(c | x_t), its
negative log-likelihood in nats (0.00 is perfect, 2.30 knows nothing) and its expected calibration error over
ten bins. Second table, on samples, the same number of each class: share recognised by B, the spread of a
class (standard deviation of its pixels beside MNIST's, 1 is right) and the cost.
"""

import argparse
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from invsolve.classifiers.formats import load_classifier
from invsolve.classifiers.guide import AveragedClassifier, DenoisedClassifier
from invsolve.gamma import Gamma, Ramp
from invsolve.guidance import ClassifierGuidance
from invsolve.likelihood import Classifier
from invsolve.posterior import Posterior
from invsolve.prior import Denoised, Prior
from invsolve.priors.catalogue import load_prior
from invsolve.samplers.pc import PC
from invsolve.sde import VE
from invsolve.training import TrainingConfig
from invsolve.training.whole import load_whole

LEVELS = (0.25, 0.5, 1.0)
HELD_OUT = 5000
Way = Callable[[int], Classifier]


class LeNet(nn.Module):
    """A classifier of clean digits (B, 1, 32, 32) in [0, 1]; the noise level it is given is ignored."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise((1, *widths)):
            layers += [nn.Conv2d(before, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        side = 32 >> len(widths)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(side**2 * widths[-1], 10))

    def forward(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


GUIDE, JUDGE = (16, 32), (8, 16, 32)


def clean_classifier(file: Path, widths: tuple[int, ...], images: Tensor, labels: Tensor) -> LeNet:
    """Train on shifted clean digits, four passes, or take up what was trained before; kept in fp16."""
    torch.manual_seed(len(widths))
    net = LeNet(widths)
    if not file.exists():
        learn(net, images, labels, epochs=4)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.half() for name, value in net.state_dict().items()}, file)
    net.load_state_dict(load_file(file))
    return net.eval()


def learn(net: LeNet, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Cross-entropy by Adam, the rate falling to zero."""
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    steps = epochs * len(images) // 64
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,))
        shift = [int(s) for s in torch.randint(-2, 3, (2,))]
        loss = F.cross_entropy(net(images[chosen].roll(shift, (2, 3))), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fall.step()


def calibration(log_p: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Accuracy, negative log-likelihood in nats, and expected calibration error over ten bins."""
    sure, chosen = log_p.exp().max(1)
    right = (chosen == labels).float()
    bins = (sure * 10).long().clamp(max=9)
    errors = [
        float((bins == b).float().mean() * (sure[bins == b].mean() - right[bins == b].mean()).abs())
        for b in bins.unique()
    ]
    return float(right.mean()), float(F.nll_loss(log_p, labels)), sum(errors)


def log_classes(way: Way, prior: Prior, images: Tensor, level: float) -> Tensor:
    """log p(c | x_t) of held-out images with noise of one level."""
    sde, rng = VE(), torch.Generator().manual_seed(1)
    found = []
    for x0 in images.split(100):
        x = x0 + level * torch.randn(x0.shape, generator=rng)
        at = Denoised(prior, sde, x, sde.time(level), graph=True)
        found.append(way(0).log_classes_at(at).detach())
    return torch.cat(found)


def draw(way: Way, gamma: Gamma, prior: Prior, args: argparse.Namespace) -> tuple[Tensor, dict[str, float]]:
    """The samples of all ten classes, (10, n, C, H, W), and the cost of one."""
    samples, calls, started = [], {"forward": 0, "vjp": 0}, time.process_time()
    for label in range(10):
        posterior = Posterior(prior, way(label), guidance=ClassifierGuidance(), gamma=gamma)
        samples.append(PC(steps=args.steps)(posterior, args.samples, args.seed))
        calls = {k: calls[k] + posterior.calls[k] for k in calls}
    n = 10 * args.samples
    return torch.stack(samples), {
        **{k: v / n for k, v in calls.items()},
        "seconds": (time.process_time() - started) / n,
    }


def spread(samples: Tensor) -> float:
    """Root mean variance of a class's pixels, (10, n, ...)."""
    return float(samples.clamp(0, 1).var(1).mean().sqrt())


def ways(args: argparse.Namespace, clean: nn.Module) -> dict[str, tuple[Way, Gamma]]:
    """Every row of the tables."""
    aware = load_classifier(args.classifier)
    tables: dict[str, tuple[Way, Gamma]] = {
        "noise-aware, gamma 1": (lambda c: Classifier(aware, c), 1.0),
        "noise-aware, gamma 2": (lambda c: Classifier(aware, c), 2.0),
        "noise-aware, gamma 4": (lambda c: Classifier(aware, c), 4.0),
        "noise-aware, gamma 3:1": (lambda c: Classifier(aware, c), Ramp(3.0, 1.0)),
        "noise-aware, gamma 1:3": (lambda c: Classifier(aware, c), Ramp(1.0, 3.0)),
        "denoised, gamma 1": (lambda c: DenoisedClassifier(clean, c), 1.0),
        "averaged 4 probes, gamma 1": (lambda c: AveragedClassifier(clean, c, probes=4), 1.0),
    }
    return {k: v for k, v in tables.items() if not args.only or any(word in k for word in args.only)}


def main() -> None:
    """Print both tables."""
    args = arguments()
    config = replace(TrainingConfig(), data="whole", crop=32, hold_out=HELD_OUT)
    config = replace(config, architecture=replace(config.architecture, in_channels=1))
    source = load_whole([args.mnist], config)
    images = torch.from_numpy(source.pixels).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(source.labels)
    known, held = slice(0, -HELD_OUT), slice(-HELD_OUT, None)
    clean, judge = (
        clean_classifier(args.networks / f"{name}.safetensors", widths, images[known], labels[known])
        for name, widths in (("guide", GUIDE), ("judge", JUDGE))
    )
    with torch.no_grad():
        right = float((judge(images[held]).argmax(1) == labels[held]).float().mean())
    asked = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    print(f"{args.samples} samples a class, {args.steps} steps, seed {args.seed}, commit {commit}")
    print(f"judge B: {right:.2%} of {HELD_OUT} held-out digits\n")
    prior, rows = load_prior(args.prior), ways(args, clean)
    calibrations(rows, prior, images[held][: args.held], labels[held][: args.held])
    real = torch.stack([images[known][labels[known] == c][:1000] for c in range(10)])
    print("\n| way | recognised by B | least class | spread | forward + vjp a sample | CPU s a sample |")
    print("|---|---|---|---|---|---|")
    for name, (way, gamma) in rows.items():
        samples, cost = draw(way, gamma, prior, args)
        with torch.no_grad():
            chosen = judge(samples.flatten(0, 1).clamp(0, 1)).argmax(1).reshape(10, -1)
        share = (chosen == torch.arange(10)[:, None]).float().mean(1)
        calls = f"{cost['forward']:.0f} + {cost['vjp']:.0f}"
        print(
            f"| {name} | {share.mean():.1%} | {share.min():.0%} | {spread(samples) / spread(real):.2f} "
            f"| {calls} | {cost['seconds']:.2f} |",
            flush=True,
        )


def calibrations(rows: dict[str, tuple[Way, Gamma]], prior: Prior, images: Tensor, labels: Tensor) -> None:
    """Print the first table; gamma has no part in it."""
    print("| p(c \\| x_t) | " + " | ".join(f"sigma {level}" for level in LEVELS) + " |")
    print("|---|" + "---|" * len(LEVELS))
    for name in dict.fromkeys(row.split(",")[0] for row in rows):
        way = next(way for row, (way, _) in rows.items() if row.startswith(name))
        cells = []
        for level in LEVELS:
            share, nats, error = calibration(log_classes(way, prior, images, level), labels)
            cells.append(f"{share:.1%}, {nats:.2f} nats, ECE {error:.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=500, help="held-out digits of the first table")
    parser.add_argument("--prior", default="digits")
    parser.add_argument("--classifier", default="digits")
    parser.add_argument("--networks", type=Path, default=Path("lenets"))
    parser.add_argument("--only", nargs="*", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    main()
