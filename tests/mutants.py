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
    Mutant(
        "sign of the guidance", "posterior.py", "at.score + expand(gamma", "at.score - expand(gamma", FLOOR
    ),
    Mutant("gamma 1.1", "posterior.py", "at.score + expand(gamma", "at.score + 1.1 * expand(gamma", FLOOR),
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
        "float(sde.sigma(s)) * math.sqrt(1 - q)",
        "float(sde.sigma(s))",
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
        "start = first - blocks.start * size",
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
    Mutant(
        "SMC weighs without the kernels' ratio",
        "samplers/smc.py",
        "- (dot(gap, z) + dot(gap, gap) / 2).double()",
        "- 0 * dot(gap, z).double()",
        "tests/test_smc.py -k modes_are_right",
    ),
    Mutant(
        "a lost half in the kernels' ratio",
        "samplers/smc.py",
        "dot(gap, gap) / 2",
        "dot(gap, gap)",
        "tests/test_smc.py -k evidence_of_a_mixture",
    ),
    Mutant(
        "SMC forgets the twist it had",
        "samplers/smc.py",
        "found.log_twist - cloud.log_twist",
        "found.log_twist - 0 * cloud.log_twist",
        "tests/test_smc.py -k modes_are_right",
    ),
    Mutant(
        "resampled particles keep the past of others",
        "samplers/smc.py",
        "mean=_taken(cloud.mean, chosen)",
        "mean=cloud.mean",
        "tests/test_smc.py -k modes_are_right",
    ),
    Mutant(
        "resampled particles keep their weights",
        "samplers/smc.py",
        "torch.full_like(cloud.log_weights, -math.log(self.particles))",
        "cloud.log_weights",
        "tests/test_smc.py -k modes_are_right",
    ),
    Mutant(
        "draws in the order of the particles",
        "samplers/smc.py",
        "last.mean.mean[chosen[order]]",
        "last.mean.mean[chosen]",
        "tests/test_smc.py -k neighbours",
    ),
    Mutant(
        "draws without weights",
        "samplers/smc.py",
        "systematic(last.log_weights, self.draws",
        "systematic(0 * last.log_weights, self.draws",
        "tests/test_smc.py -k evidence_of_a_mixture or modes_are_right or set_alone",
    ),
    Mutant(
        "particle sets share their noise",
        "samplers/smc.py",
        '.child("particle set", k)',
        '.child("particle set", 0)',
        "tests/test_smc.py -k set_alone",
    ),
    Mutant(
        "SMC starts amid the data",
        "samplers/smc.py",
        "_BEYOND = 5.0",
        "_BEYOND = 0.5",
        "tests/test_smc.py -k well_above",
    ),
    Mutant(
        "a twist without its determinant",
        "twist.py",
        "turned**2 / spread + spread.log()",
        "turned**2 / spread",
        "tests/test_smc.py -k matched_twist",
    ),
    Mutant(
        "a white twist without its growth",
        "twist.py",
        ".double().sum(1) + growth)",
        ".double().sum(1))",
        "tests/test_smc.py -k white_twist",
    ),
    Mutant(
        "a kernel that does not look ahead",
        "samplers/predictors.py",
        "return memory.mean - self._ahead(memory, eh) / math.expm1(-eh)",
        "return memory.mean",
        "tests/test_smc.py -k law_of_its_predictors",
    ),
    Mutant(
        "MALA accepts everything",
        "samplers/mala.py",
        "uniform.log().to(log_accept) < log_accept",
        "uniform.log().to(log_accept) < 1e9",
        "tests/test_smc.py -k mala",
    ),
    Mutant(
        "MALA without the noise of the measurement",
        "samplers/mala.py",
        "self._seen(x, e)",
        "self._seen(x)",
        "tests/test_smc.py -k mala",
    ),
    Mutant(
        "learning: a score matched to z, not to z / sigma",
        "training/objectives.py",
        "expand(sde.sigma(t), x0) * score(x, t) + z",
        "score(x, t) + z",
        "tests/test_objectives.py -k song_s",
    ),
    Mutant(
        "learning: half of the likelihood weight",
        "training/objectives.py",
        "2 * (high - low), dtype",
        "high - low, dtype",
        "tests/test_objectives.py -k likelihood_s",
    ),
    Mutant(
        "learning: EDM's weight by the level",
        "training/objectives.py",
        "/ self.sigma_data**2\n",
        "/ level**2\n",
        "tests/test_objectives.py -k edm_weighs",
    ),
    Mutant(
        "learning: the slip of the lecture notes",
        "training/implicit.py",
        "return along + dot(v, s) ** 2 / 2",
        "return along + dot(v, s) / 2",
        "tests/test_objectives.py -k all_signs",
    ),
    Mutant(
        "learning: one entry of the Jacobian for all",
        "training/implicit.py",
        ".flatten(1)[:, i]",
        ".flatten(1)[:, 0]",
        "tests/test_objectives.py -k closed_form",
    ),
    Mutant(
        "learning: the bound without its half",
        "training/bound.py",
        "dot(off, off) / 2",
        "dot(off, off)",
        "tests/test_bound.py -k is_their_divergence",
    ),
    Mutant(
        "learning: a density without the Jacobian of alpha",
        "training/bound.py",
        "return scaled - x[0].numel() * alpha.log().to(scaled)",
        "return scaled",
        "tests/test_bound.py -k diffused_gaussian",
    ),
    Mutant(
        "learning: training on what is held out",
        "training/whole.py",
        "rng.integers(len(self.pixels) - self.hold_out, size=n)",
        "rng.integers(len(self.pixels), size=n)",
        "tests/test_classifier_training.py -k held_out_are_never",
    ),
    Mutant(
        "learning: an ellipse of the wrong half",
        "training/phantoms.py",
        "(np.cos(angle) * (x - mx) + np.sin(angle) * (y - my)) / a",
        "(np.cos(angle) * (x - mx) + np.sin(angle) * (y - my)) / b",
        "tests/test_classifier_training.py -k ellipse",
    ),
    Mutant(
        "learning: a slope without its noise",
        "training/slopes.py",
        "mean + expand(sigma**2, x) * slope",
        "mean + expand(sigma, x) * slope",
        "tests/test_slopes.py -k least",
    ),
    Mutant(
        "learning: a prior asked in the network's units",
        "training/slopes.py",
        "sigma / 2) - 1",
        "sigma) - 1",
        "tests/test_slopes.py -k own_units",
    ),
    Mutant(
        "classifier: noise in the image's units",
        "classifiers/formats.py",
        "self.span * level",
        "level",
        "tests/test_classifier_guide.py -k physical",
    ),
    Mutant(
        "classifier: a root of the wrong length",
        "classifiers/guide.py",
        ".sqrt() * norm[:, None]",
        ".sqrt()",
        "tests/test_classifier_guide.py -k lanczos",
    ),
    Mutant(
        "classifier: a sum for an average",
        "classifiers/guide.py",
        ".logsumexp(0) - math.log(self.probes)",
        ".logsumexp(0)",
        "tests/test_classifier_guide.py -k average_over",
    ),
    Mutant(
        "classifier: a ramp upside down",
        "gamma.py",
        "(self.high - self.low) * level**2",
        "(self.low - self.high) * level**2",
        "tests/test_classifier_guide.py -k ramp",
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
