"""Class-conditional digits: three ways to use a classifier, beside each other.

    python benchmarks/digits.py MNIST [--samples 20] [--steps 40] [--seed 0] [--prior digits]
        [--classifier digits] [--networks FOLDER] [--held 500] [--only NAME ...] [--write]

MNIST is a folder with train-images-idx3-ubyte and train-labels-idx1-ubyte, perhaps .gz. Its last 5,000 images
are held out: neither the prior nor any classifier has seen them. Two classifiers of clean images are trained
here (a small LeNet each, one minute; kept in --networks): A guides in the ways that need a clean classifier,
B judges and guides nobody.

First table, on held-out digits with noise of four levels ([0, 1] units): accuracy of p(c | x_t), its
negative log-likelihood in nats (0.00 is perfect, 2.30 knows nothing), its expected calibration error over ten
bins, and the largest difference between the mean of p(c) and the share of class c.

Second table, on the same: what the gradient g is worth. E[x_0 | x_t, c] = D + sigma^2 g, so a right g lowers
the squared error of D, in nats an e-fold of noise (|D - x_0|^2 - |D + sigma^2 g - x_0|^2) / sigma^2; over all
noise levels the exact one gains the entropy of the class, 2.30 nats. Beside it the multiple of g that gains
most: 1 for the exact one, below 1 where g is rough, above 1 where it is too weak.

Third table, on samples, the same number of each class: share recognised by B with its 95 % interval (Wilson),
the least of the classes, the spread of a class (standard deviation of its pixels beside MNIST's, 1 is right)
and the cost. --write puts the tables into docs/classifiers.md.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from class_figures import Way, evaluations, slopes, spread, values, wilson
from distances import between_markers
from figures import commit, table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from invsolve.classifiers.formats import load_classifier
from invsolve.classifiers.guide import AveragedClassifier, DenoisedClassifier
from invsolve.files import write_whole
from invsolve.gamma import Gamma, Ramp
from invsolve.guidance import ClassifierGuidance
from invsolve.likelihood import Classifier
from invsolve.posterior import Posterior
from invsolve.prior import Prior
from invsolve.priors.catalogue import load_prior
from invsolve.samplers.pc import PC
from invsolve.training import TrainingConfig
from invsolve.training.whole import load_whole

LEVELS = (0.25, 0.5, 1.0, 2.0)
HELD_OUT = 5000
PAGE = Path(__file__).parents[1] / "docs" / "classifiers.md"


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


def ways(args: argparse.Namespace, clean: nn.Module) -> dict[str, tuple[Way, Gamma]]:
    """Every row of the tables."""
    aware = load_classifier(args.classifier)
    gammas: tuple[Gamma, ...] = (1.0, 2.0, 4.0, Ramp(4.0, 1.0), Ramp(1.0, 4.0))
    rows: dict[str, tuple[Way, Gamma]] = {
        f"noise-aware, gamma {said(gamma)}": (lambda c: Classifier(aware, c), gamma) for gamma in gammas
    }
    for gamma in (1.0, 4.0):
        rows[f"denoised, gamma {said(gamma)}"] = (lambda c: DenoisedClassifier(clean, c), gamma)
        rows[f"averaged, gamma {said(gamma)}"] = (lambda c: AveragedClassifier(clean, c, probes=4), gamma)
    return {k: v for k, v in rows.items() if not args.only or any(word in k for word in args.only)}


def said(gamma: Gamma) -> str:
    """As --gamma is written."""
    return f"{gamma.high:g}:{gamma.low:g}" if isinstance(gamma, Ramp) else f"{gamma:g}"


def knowledge(
    rows: dict[str, tuple[Way, Gamma]], prior: Prior, images: Tensor, labels: Tensor
) -> Iterator[str]:
    """The tables of values and of slopes; gamma has no part in them."""
    named = {row.split(",")[0]: way for row, (way, _) in rows.items()}
    head = [f"sigma {level}" for level in LEVELS]
    of_values, of_slopes = [], []
    for name, way in named.items():
        cells, more = [], []
        for level in LEVELS:
            right, nats, error, shares = values(way, evaluations(prior, images, labels, level))
            cells.append(f"{right:.1%}, {nats:.2f}, {error:.3f}, {shares:.3f}")
            gained, best = slopes(way, evaluations(prior, images, labels, level))
            more.append(f"{gained:+.2f}, {best:.2f}")
        of_values.append([name, *cells])
        of_slopes.append([name, *more])
    yield table(["values: accuracy, nats, ECE, shares", *head], of_values)
    yield table(["slopes: nats gained, best multiple", *head], of_slopes)


def drawn(
    rows: dict[str, tuple[Way, Gamma]], prior: Prior, judge: nn.Module, real: float, args: argparse.Namespace
) -> str:
    """The table of samples; each row is printed as it is done."""
    lines = []
    for name, (way, gamma) in rows.items():
        samples, cost = draw(way, gamma, prior, args)
        hits = recognised(judge, samples)
        low, high = wilson(int(hits.sum()), hits.numel())
        lines.append(
            [
                name,
                f"{hits.mean():.1%} ({low:.1%} to {high:.1%})",
                f"{hits.mean(1).min():.0%}",
                f"{spread(samples) / real:.2f}",
                f"{cost['forward']:.0f} + {cost['vjp']:.0f}",
                f"{cost['seconds']:.2f}",
            ]
        )
        print(*lines[-1], sep=" | ", flush=True)
    head = ["way", "recognised by B", "least class", "spread", "forward + vjp a sample", "CPU s a sample"]
    return table(head, lines)


@torch.no_grad()
def recognised(judge: nn.Module, samples: Tensor) -> Tensor:
    """1 where the judge finds the class asked for, (10, n)."""
    chosen = judge(samples.flatten(0, 1).clamp(0, 1)).argmax(1).reshape(len(samples), -1)
    return (chosen == torch.arange(len(samples))[:, None]).float()


def draw(way: Way, gamma: Gamma, prior: Prior, args: argparse.Namespace) -> tuple[Tensor, dict[str, float]]:
    """The samples of all ten classes, (10, n, C, H, W), and the cost of one."""
    samples, calls, started = [], {"forward": 0, "vjp": 0}, time.process_time()
    for label in range(10):
        posterior = Posterior(prior, way(label), guidance=ClassifierGuidance(), gamma=gamma)
        samples.append(PC(steps=args.steps)(posterior, args.samples, args.seed))
        calls = {k: calls[k] + posterior.calls[k] for k in calls}
    n = 10 * args.samples
    seconds = (time.process_time() - started) / n
    return torch.stack(samples), {**{k: v / n for k, v in calls.items()}, "seconds": seconds}


def digits(folder: Path) -> tuple[Tensor, Tensor]:
    """All images (n, 1, 32, 32) in [0, 1] and their classes; the last HELD_OUT are for measuring."""
    config = replace(TrainingConfig(), data="whole", crop=32, hold_out=HELD_OUT)
    source = load_whole([folder], replace(config, architecture=replace(config.architecture, in_channels=1)))
    assert source.labels is not None, "MNIST has labels"
    return torch.from_numpy(source.pixels).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(source.labels)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, and write them where that is asked for."""
    args = arguments(argv)
    images, labels = digits(args.mnist)
    known, held = slice(0, -HELD_OUT), slice(-HELD_OUT, None)
    clean, judge = (
        clean_classifier(args.networks / f"{name}.safetensors", widths, images[known], labels[known])
        for name, widths in (("guide", GUIDE), ("judge", JUDGE))
    )
    with torch.no_grad():
        right = float((judge(images[held]).argmax(1) == labels[held]).float().mean())
    note = (
        f"B recognises {right:.2%} of the {HELD_OUT} held-out digits; the first two tables have {args.held} "
        f"of them, the third {args.samples} samples a class in {args.steps} steps, seed {args.seed}. "
        f"Commit {commit()}, one thread."
    )
    print(note)
    prior, rows = load_prior(args.prior), ways(args, clean)
    tables = list(knowledge(rows, prior, images[held][: args.held], labels[held][: args.held]))
    print(*tables, sep="\n\n", flush=True)
    real = torch.stack([images[known][labels[known] == c][:1000] for c in range(10)])
    content = "\n\n".join([note, *tables, drawn(rows, prior, judge, spread(real), args)])
    if args.write:
        page = between_markers(PAGE.read_text(encoding="utf-8"), "digits", content)
        write_whole(PAGE, page.encode())


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, default=500, help="held-out digits of the first two tables")
    parser.add_argument("--prior", default="digits")
    parser.add_argument("--classifier", default="digits")
    parser.add_argument("--networks", type=Path, default=Path("lenets"))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--write", action="store_true", help="write docs/classifiers.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
