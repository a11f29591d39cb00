"""Plant known bugs one by one in a copy of the package and see that a test fails for each.

    python tests/mutants.py            all of them, two at a time
    python tests/mutants.py alpha      those whose name contains the word

A test that passes with the code broken guards nothing. Each row names the bug, the line it is planted in and
the tests that should notice; a bug that no longer finds its line is an error too, so the table stays true to
the code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """One planted bug: the text `old` of `file` becomes `new`, and `tests` (pytest arguments) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


FLOOR = "tests/test_exactness.py -k test_float32_priors"
FIRST = "tests/test_exactness.py -k within_c_over_steps"
ROWS = "tests/test_samplers.py -k depend_on_its_batch"
MATCH = "tests/test_guidance.py -k exact_for_gaussian"

MUTANTS = [
    Mutant("sign of the guidance", "posterior.py", "at.score + self.gamma", "at.score - self.gamma", FLOOR),
    Mutant("gamma 1.1", "posterior.py", "at.score + self.gamma", "at.score + 1.1 * self.gamma", FLOOR),
    Mutant(
        "a lost alpha in the covariance",
        "prior.py",
        "own = expand(self.sigma**2 / self.alpha, v)",
        "own = expand(self.sigma**2, v)",
        MATCH,
    ),
    Mutant(
        "a lost alpha in the shift",
        "prior.py",
        "expand(self.alpha / self.sigma**2, delta)",
        "expand(1 / self.sigma**2, delta)",
        "tests/test_guidance.py -k exact_is_the_gradient",
    ),
    Mutant(
        "a lost alpha in Tweedie",
        "prior.py",
        "expand(self.alpha, self.x) * self.mean",
        "self.mean",
        "tests/test_samplers.py -k every_combination",
    ),
    Mutant(
        "a lost alpha in the posterior's mean",
        "posterior.py",
        "(x + sigma**2 * score) / alpha",
        "(x + sigma**2 * score)",
        "tests/test_samplers.py -k every_combination",
    ),
    Mutant(
        "sigma of the ancestral noise",
        "samplers/predictors.py",
        "mean + sigma_s * math.sqrt(1 - q) * noise()",
        "mean + sigma_s * noise()",
        FIRST,
    ),
    Mutant(
        "the corrector's factor 2",
        "samplers/correctors.py",
        "(2 * eps).sqrt()",
        "eps.sqrt()",
        "tests/test_samplers.py -k leaves_the_right_law",
    ),
    Mutant(
        "sigma_y squared twice",
        "likelihood.py",
        "self.sigma_y.to(predicted) ** 2",
        "self.sigma_y.to(predicted) ** 4",
        "tests/test_exact.py -k normal_equations",
    ),
    Mutant(
        "a norm over the batch in the corrector",
        "samplers/correctors.py",
        "(dot(score, score) + _PSEUDO",
        "(dot(score, score).mean() + _PSEUDO",
        ROWS,
    ),
    Mutant(
        "a norm over the batch in DPS",
        "guidance.py",
        "dot(r, r).clamp_min(torch.finfo(r.dtype).tiny).sqrt()",
        "dot(r, r).mean().clamp_min(torch.finfo(r.dtype).tiny).sqrt().expand(len(r))",
        ROWS,
    ),
    Mutant(
        "a step length over the batch in CG",
        "linalg.py",
        "curvature = dot(p, kp)",
        "curvature = dot(p, kp).mean().expand(len(p))",
        "tests/test_linalg.py",
    ),
    Mutant(
        "CG without its guard against curvature",
        "linalg.py",
        "active = active & (curvature > 0)",
        "active = active & (curvature != 0)",
        "tests/test_linalg.py",
    ),
    Mutant(
        "CG returns its last iterate",
        "linalg.py",
        "best_u = torch.where(_column(better, b), u, best_u)",
        "best_u = u",
        "tests/test_linalg.py",
    ),
    Mutant(
        "the run ends with the prior's mean",
        "samplers/pc.py",
        "posterior.mean(x, times[-1])",
        "posterior.at(x, times[-1]).mean",
        "tests/test_samplers.py -k last_step_is",
    ),
    Mutant(
        "the run ends too early",
        "posterior.py",
        "self.likelihood.finest / 10",
        "self.likelihood.finest",
        "tests/test_samplers.py -k ends_below",
    ),
    Mutant(
        "noise by position in the batch",
        "rng.py",
        "start = self.first - blocks.start * size",
        "start = 0",
        "tests/test_rng.py",
    ),
    Mutant(
        "the seed forgotten",
        "rng.py",
        "seed_of(self.seed, self.content, block, key)",
        "seed_of(0, self.content, block, key)",
        "tests/test_rng.py",
    ),
    Mutant(
        "the noise level not scaled by alpha",
        "prior.py",
        "level = (self.sigma / self.alpha)",
        "level = self.sigma",
        "tests/test_samplers.py -k every_combination",
    ),
    Mutant(
        "half the score in Euler-Maruyama",
        "samplers/predictors.py",
        "drift = f * x - g**2",
        "drift = f * x - 0.5 * g**2",
        FIRST,
    ),
    Mutant(
        "half the decay in the SDE form of DPM-Solver++",
        "samplers/predictors.py",
        "keep = math.exp(-(1 + eta) * h)",
        "keep = math.exp(-h)",
        "tests/test_samplers.py -k second_order_predictors",
    ),
    Mutant(
        "cancellation at small times",
        "sde.py",
        "(-torch.expm1(2 * self.log_alpha(t))).sqrt()",
        "(1 - (2 * self.log_alpha(t)).float().exp()).double().sqrt()",
        "tests/test_sde.py",
    ),
    Mutant(
        "measurement noise forgotten by Replace",
        "guidance.py",
        "missing = at_level.sigma**2 * c - own",
        "missing = at_level.sigma**2 * c - 0 * own",
        "tests/test_guidance.py -k replace",
    ),
]


def _command(mutant: Mutant) -> list[str]:
    file, *words = mutant.tests.split(" -k ")
    select = ["-k", *words] if words else []
    return [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(ROOT / file), *select]


def survives(mutant: Mutant) -> bool:
    """Plant the bug in a copy of the package and run its tests; True when they pass all the same."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            ROOT / "invsolve", Path(folder, "invsolve"), ignore=shutil.ignore_patterns("__pycache__")
        )
        path = Path(folder, "invsolve", mutant.file)
        text = path.read_text()
        if text.count(mutant.old) != 1:
            sys.exit(f"mutant {mutant.name!r}: {mutant.old!r} is not once in {mutant.file}.")
        path.write_text(text.replace(mutant.old, mutant.new))
        environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(_command(mutant), cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"mutant {mutant.name!r}: the tests did not run:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    print(f"{'SURVIVED' if done.returncode == 0 else 'caught  '}  {mutant.name}", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run all mutants, or those whose name holds the first argument; exit 1 when one survives."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [m for m in MUTANTS if word in m.name]
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        alive = [m.name for m, lives in zip(chosen, pool.map(survives, chosen), strict=True) if lives]
    print(f"{len(chosen) - len(alive)} of {len(chosen)} planted bugs were caught.")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
