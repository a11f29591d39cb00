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

IMAGES = "tests/test_exactness.py -k defaults_with_50_steps"

MUTANTS = [
    Mutant(
        "the weight of 2M's difference in the SDE form",
        "samplers/predictors.py",
        'rate = 4 / 3 if self.kind == "sde" else 1.0',
        "rate = 1.0",
        "tests/test_samplers.py -k every_width",
    ),
    Mutant(
        "order three in short steps",
        "samplers/predictors.py",
        "3 if even and now.length <= _SHORT else 2",
        "2",
        "tests/test_samplers.py -k spread_of_dpmpp",
    ),
    Mutant(
        "order two in long steps",
        "samplers/predictors.py",
        "3 if even and now.length <= _SHORT else 2",
        "3 if even else 2",
        "tests/test_samplers.py -k spread_of_dpmpp",
    ),
    Mutant(
        "order three where lengths change",
        "samplers/predictors.py",
        "3 if even and now.length <= _SHORT else 2",
        "3 if now.length <= _SHORT else 2",
        "tests/test_samplers.py -k spread_of_dpmpp",
    ),
    Mutant(
        "a start within the data",
        "samplers/pc.py",
        "posterior.span(_BEYOND)",
        "posterior.span()",
        "tests/test_samplers.py -k keep_their_width",
    ),
    Mutant(
        "patience with a derivative that needs none",
        "guidance.py",
        "steps if known else self.patience",
        "self.patience",
        "tests/test_guidance.py -k small_singular",
    ),
    Mutant(
        "a solve that gives up early",
        "guidance.py",
        "after which a sample's solve stops\"] = 4",
        "after which a sample's solve stops\"] = 2",
        IMAGES,
    ),
    Mutant("sign of the guidance", "posterior.py", "at.score + expand(self", "at.score - expand(self", FIRST),
    Mutant(
        "sign of the guidance in the mean",
        "posterior.py",
        "shift = self._gamma(at)",
        "shift = -self._gamma(at)",
        FLOOR,
    ),
    Mutant("gamma 1.1", "posterior.py", "shift = self._gamma(at)", "shift = 1.1 * self._gamma(at)", FLOOR),
    Mutant(
        "a lost alpha in the covariance",
        "prior.py",
        "return expand(self.sigma**2 / self.alpha, v)",
        "return expand(self.sigma**2, v)",
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
        "shift = self._gamma(at) * at.sigma**2 / at.alpha",
        "shift = self._gamma(at) * at.sigma**2",
        "tests/test_guidance.py -k one_evaluation",
    ),
    Mutant(
        "a lost alpha in an evaluation",
        "posterior.py",
        "(x + sigma**2 * score) / alpha",
        "(x + sigma**2 * score)",
        "tests/test_guidance.py -k one_evaluation",
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
        "TMPD that goes beyond its minimum",
        "guidances/tmpd.py",
        "torch.where(curvature > least, least / curvature, 1.0)",
        "torch.ones_like(least)",
        "tests/test_guidances.py -k beyond_the_minimum",
    ),
    Mutant(
        "a lost alpha in score-ALD",
        "guidances/score_ald.py",
        "linear.At(off / variance, at.x) / expand(at.alpha, at.x)",
        "linear.At(off / variance, at.x)",
        "tests/test_guidances.py -k score_ald_is_exact",
    ),
    Mutant(
        "sigma in place of lambda in DiffPIR",
        "guidances/diffpir.py",
        "at.level**2 / self.weight",
        "at.sigma**2 / self.weight",
        "tests/test_guidances.py -k diffpir_is_exact",
    ),
    Mutant(
        "DDNM+ that takes noisy components whole",
        "guidances/ddnm.py",
        "torch.minimum(1 / s.abs(), level / sigma_y)",
        "(1 / s.abs() + 0 * level)",
        "tests/test_guidances.py -k what_its_noise",
    ),
    Mutant(
        "unmeasured components moved",
        "guidances/spectral.py",
        "torch.where(seen, gains, 0.0) * inside",
        "gains * (inside + 1)",
        "tests/test_guidances.py -k blends_each",
    ),
    Mutant(
        "ILVR that counts the noise of y twice",
        "guidances/ilvr.py",
        "(sigma * s) ** 2 - (alpha * found",
        "(sigma * s) ** 2 - 0 * (alpha * found",
        "tests/test_guidances.py -k at_the_level_reached",
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
        "a start of CG that forgets the noise",
        "priors/stationary.py",
        "spectrum + variance.to(v)",
        "spectrum + 0.5 * variance.to(v)",
        "tests/test_stationary.py -k spectrum",
    ),
    Mutant(
        "a start of CG that forgets what lies between the pixels kept",
        "priors/stationary.py",
        "[..., ::n, ::n]).real",
        "[..., : size[0] // n, : size[1] // n]).real",
        "tests/test_stationary.py -k spectrum",
    ),
    Mutant(
        "prior: a surrogate of one size for all pictures",
        "prior.py",
        "surrogate.covariance(v, self.level, self.amplitude)",
        "surrogate.covariance(v, self.level, self.amplitude * 0 + 1)",
        "tests/test_stationary.py -k its_size",
    ),
    Mutant(
        "prior: a trace that counts half of the frequencies",
        "priors/stationary.py",
        "twice = torch.full(power.shape[-1:], 2.0",
        "twice = torch.full(power.shape[-1:], 1.0",
        "tests/test_stationary.py -k its_size",
    ),
    Mutant(
        "CG returns its last iterate",
        "linalg.py",
        "_pick(better, image, best_image)",
        "image",
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
        "seed_of(index(self.seed), self.content, block, key)",
        "seed_of(0, self.content, block, key)",
        "tests/test_rng.py",
    ),
    Mutant(
        "the noise level not scaled by alpha",
        "prior.py",
        "self.level = self.sigma / self.alpha",
        "self.level = self.sigma",
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
        "guidances/replace.py",
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
        "resampling in the order of the particles",
        "samplers/smc.py",
        "order = neighbours(alike)",
        "order = torch.arange(len(neighbours(alike)))",
        "tests/test_smc.py -k each_mode_its_share",
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
        "return memory.mean - self._ahead(memory, eh, 2) / math.expm1(-eh)",
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
        "learning: an objective of the config without its weight",
        "training/choice.py",
        "(expand(weight, x0) * error.square()).mean()",
        "error.square().mean()",
        "tests/test_training_objective.py -k closed_form",
    ),
    Mutant(
        "learning: J counted by sigma, not sigma^2",
        "training/choice.py",
        "sigma.to(j) ** 2 * j",
        "sigma.to(j) * j",
        "tests/test_training_objective.py -k closed_form",
    ),
    Mutant(
        "learning: gradients summed over processes, not averaged",
        "training/group.py",
        "gradient.copy_(shared / world())",
        "gradient.copy_(shared)",
        "tests/test_training_group.py -k mean_of_theirs",
    ),
    Mutant(
        "learning: a group that lives on in the defaults of functions",
        "training/group.py",
        '    import_module("torch.distributed.nn.functional")\n',
        "",
        "tests/test_training_group.py -k outlives",
    ),
    Mutant(
        "devices: noise of a training left on the CPU",
        "training/choice.py",
        "generator=rng).to(x0)",
        "generator=rng)",
        "tests/test_devices.py -k prior_learns",
    ),
    Mutant(
        "devices: Muon's momentum left on the CPU",
        "training/loop.py",
        'moments[f"muon.{name}"].to(self.device)',
        'moments[f"muon.{name}"]',
        "tests/test_devices.py -k resumed_the_same",
    ),
    Mutant(
        "devices: the iterations of a solve left on the CPU",
        "guidance.py",
        "beyond, known = at.beyond.to(r.device),",
        "beyond, known = at.beyond,",
        "tests/test_devices.py -k test_priors",
    ),
    Mutant(
        "devices: an operator left on the CPU",
        "run/parts.py",
        'return operator.to(device) if hasattr(operator, "to") else operator',
        "return operator",
        "tests/test_devices.py -k test_commands",
    ),
    Mutant(
        "calibrate: a torn line is taken for whole",
        "calibration/journal.py",
        'content[: content.rfind(b"\\n") + 1]',
        "content",
        "tests/test_calibrate.py -k was_stopped",
    ),
    Mutant(
        "calibrate: as many threads as there are",
        "calibration/command.py",
        "with one_thread():",
        "if True:",
        "tests/test_calibrate.py -k by_one_thread",
    ),
    Mutant(
        "identity: the code of a plugin is not looked at",
        "run/identity.py",
        "{part.version}, {digest}",
        "{part.version}",
        "tests/test_identity.py",
    ),
    Mutant(
        "calibrate: another study is continued",
        "calibration/journal.py",
        "        if changed:\n",
        "        if False:\n",
        "tests/test_calibrate.py -k another_study",
    ),
    Mutant(
        "training: processes that outlive the call",
        "training/group.py",
        "            process.kill()\n",
        "            pass\n",
        "tests/test_training_group.py -k call_that_waits",
    ),
    Mutant(
        "commands: a SIGTERM that nobody hears",
        "cli/interrupt.py",
        "with terminable():",
        "if True:",
        "tests/test_training_group.py -k stopped_training",
    ),
    Mutant(
        "devices: a training that stays on the CPU",
        "training/__init__.py",
        "Run(job.config, device), checkpoint",
        'Run(job.config, "cpu"), checkpoint',
        "tests/test_devices.py -k command_that_trains",
    ),
    Mutant(
        "devices: float32 rounded to 11 bits on a GPU",
        "run/parts.py",
        "    keep_float32(device)\n",
        "",
        "tests/test_devices.py -k test_commands",
    ),
    Mutant(
        "devices: a check of a prior on the CPU",
        "testing/plugin.py",
        "made.to(device) if isinstance(made, Prior) else made",
        "made",
        "tests/test_devices.py -k checks_of",
    ),
    Mutant(
        "devices: every process on the first GPU",
        "device.py",
        "process % _count()",
        "0",
        "tests/test_devices.py -k go_round",
    ),
    Mutant(
        "learning: weights moved by a gradient that is no number",
        "training/loop.py",
        "if not math.isfinite(length):",
        "if length < 0:",
        "tests/test_training_group.py -k no_number",
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
        "sigma.to(x.device) / 2) - 1",
        "sigma.to(x.device)) - 1",
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
    Mutant(
        "files: sizes believed before they are seen",
        "priors/weight_file.py",
        "if architecture.least > held:",
        "if False:",
        "tests/test_checkpoints_claims.py -k claims_too_much",
    ),
    Mutant(
        "files: an archive unpacked without end",
        "priors/checkpoints/unpickle.py",
        "if claimed > size:",
        "if claimed < 0:",
        "tests/test_checkpoints_claims.py -k archive",
    ),
    Mutant(
        "files: whole numbers for weights",
        "priors/checkpoints/fit.py",
        "if not value.is_floating_point()",
        "if value.is_quantized",
        "tests/test_checkpoints_claims.py -k numbers",
    ),
    Mutant(
        "files: modules walked for ever",
        "priors/checkpoints/edm.py",
        "record.walked = True",
        "record.walked = False",
        "tests/test_checkpoints_hostile.py -k within_themselves",
    ),
    Mutant(
        "files: blocks counted without end",
        "priors/checkpoints/adm.py",
        'rf"{stem}\\.(\\d{{1,3}})\\."',
        'rf"{stem}\\.(\\d{{1,6}})\\d*\\."',
        "tests/test_checkpoints_claims.py -k number_without_end",
    ),
    Mutant(
        "a halo without its grid",
        "priors/tiled.py",
        "low = max(start - halo, 0) // stride * stride",
        "low = max(start - halo, 0)",
        "tests/test_tiled.py -k tiles_are_the_whole_image",
    ),
    Mutant(
        "a halo one resolution short",
        "priors/network.py",
        "for _ in self.widths[1:]:",
        "for _ in self.widths[2:]:",
        "tests/test_tiled.py -k test_the_halo",
    ),
    Mutant(
        "a halo without the 4 x 4 convolution",
        "priors/network.py",
        "return 2 * reach + 9",
        "return 2 * reach + 8",
        "tests/test_tiled.py -k test_the_halo",
    ),
    Mutant(
        "tiles whose derivatives overwrite each other",
        "priors/tiled.py",
        "gradient[window] += torch",
        "gradient[window] = torch",
        "tests/test_tiled.py -k derivative_of_tiles",
    ),
    Mutant(
        "tiles that keep the whole graph",
        "priors/tiled.py",
        "_Tiles.apply(full, sigma, self, x.shape[-2:])",
        "self.whole.denoise(full, sigma)[..., : x.shape[-2], : x.shape[-1]]",
        "tests/test_tiled.py -k keeps_grows_with_the_image",
    ),
    Mutant(
        "grey tiles with noise of their own",
        "priors/denoiser.py",
        "return GreyPrior(self.colour.tiled(size))",
        "return TiledPrior(self, size)  # type: ignore",
        "tests/test_tiled.py -k grey",
    ),
    Mutant(
        "forwards of tiles that nobody counts",
        "prior.py",
        "len(v) * bool(self.prior.tile)",
        "0 * bool(self.prior.tile)",
        "tests/test_tiled.py -k own",
    ),
    Mutant(
        "flow: a coefficient of the integrator",
        "samplers/dopri.py",
        "-2187 / 6784, 11 / 84",
        "-2187 / 6700, 11 / 84",
        "tests/test_ode.py -k order_five",
    ),
    Mutant(
        "flow: one step size for the batch",
        "samplers/flow.py",
        "e.square().mean(1).sqrt().cpu() / self",
        "e.square().mean().sqrt().cpu() / self",
        "tests/test_ode.py -k depend_on_its_batch",
    ),
    Mutant(
        "flow: every row is carried to the end",
        "samplers/dopri.py",
        "rows = left.nonzero()[:, 0]",
        "rows = torch.arange(len(left))",
        "tests/test_ode.py -k depend_on_its_batch",
    ),
    Mutant(
        "flow: a lost alpha",
        "samplers/flow.py",
        "expand(sde.alpha(t), xh) * xh, t",
        "xh, t",
        "tests/test_ode.py -k modes_right",
    ),
    Mutant(
        "flow: the sample carries the last noise",
        "samplers/ode.py",
        "yield Step(i + 1, 0.0, flow.mean(z, low), 1.0)",
        "yield Step(i + 1, 0.0, flow.signal(z, low), 1.0)",
        "tests/test_ode.py -k posterior_mean",
    ),
    Mutant(
        "density: without the volume of the code",
        "samplers/density.py",
        "normal[:, None] - d * float(flow.radius(low).log()) - end[:, d:]",
        "normal[:, None] - end[:, d:]",
        "tests/test_density.py -k thousandth",
    ),
    Mutant(
        "density: the trace of another row",
        "samplers/density.py",
        "self.signs[rows]",
        "self.signs[: len(rows)]",
        "tests/test_density.py -k whatever_stands_beside",
    ),
    Mutant(
        "density: standard error of one probe",
        "samplers/density.py",
        "nats.std(1) / nats.shape[1] ** 0.5",
        "nats.std(1)",
        "tests/test_density.py -k standard_error",
    ),
    Mutant(
        "density: probes drawn in bfloat16's shadow",
        "samplers/density.py",
        "with prior.full_precision():",
        "if True:",
        "tests/test_density.py -k bfloat16",
    ),
    Mutant(
        "density: levels of a 255th",
        "samplers/density.py",
        "(k + uniform) / levels",
        "(k + uniform) / (levels - 1)",
        "tests/test_density.py -k own_level",
    ),
    Mutant(
        "calibration: the truth among its own samples",
        "calibration/figures.py",
        "squares * n / (n - 1)).clip(0)",
        "squares * (n - 1) / n).clip(0)",
        "tests/test_calibration_statistics.py -k coverage_of_the_truth",
    ),
    Mutant(
        "calibration: the error of the mean forgotten",
        "calibration/exchange.py",
        "return (1 + 1 / samples) * variance",
        "return variance",
        "tests/test_calibration_statistics.py -k variance_ratio_is",
    ),
    Mutant(
        "calibration: noise of truth and reference shared",
        "calibration/simulate.py",
        'seed_of("calibration", purpose, self.seed, k)',
        'seed_of("calibration", self.seed, k)',
        "tests/test_calibrate.py -k are_independent",
    ),
    Mutant(
        "calibration: ranks that count ties as below",
        "calibration/ranks.py",
        "(samples < truth)",
        "(samples <= truth)",
        "tests/test_calibration_statistics.py -k ties",
    ),
    Mutant(
        "gamma lost in the conditioned draw",
        "samplers/conditional.py",
        "return x + expand(gamma * r2, x)",
        "return x + expand(r2, x)",
        "tests/test_split.py -k exact_draw",
    ),
    Mutant(
        "Langevin's factor 2",
        "samplers/conditional.py",
        "expand((2 * eps).sqrt(), x) * noise(i)",
        "expand(eps.sqrt(), x) * noise(i)",
        "tests/test_split.py -k langevin_draws",
    ),
    Mutant(
        "a curvature over the batch",
        "samplers/conditional.py",
        "norm = dot(change, change).sqrt()",
        "norm = dot(change, change).sqrt().mean().expand(len(x))",
        "tests/test_annealed.py -k index_alone",
    ),
    Mutant(
        "a lost alpha in DAPS's new noise",
        "samplers/daps.py",
        'x = noised(sde, x0, times[i + 1], own("renoise"))',
        'x = x0 + float(sde.sigma(times[i + 1])) * own("renoise")',
        "tests/test_split.py -k white_gaussian",
    ),
    Mutant(
        "a lost alpha in the prior step",
        "samplers/pnp_dm.py",
        "x_t = float(sde.alpha(t)) * finite",
        "x_t = finite",
        "tests/test_split.py -k a_pair_of_steps",
    ),
    Mutant(
        "RED-diff pulled by x_t without its noise's scale",
        "samplers/red_diff.py",
        "scale = level if self.weight is None",
        "scale = 1.0 if self.weight is None",
        "tests/test_annealed.py -k red_diff_is_the_mean",
    ),
    Mutant(
        "a measurement that is not perturbed",
        "samplers/enkg.py",
        "likelihood.y.to(a) - a) - e).flatten(1)",
        "likelihood.y.to(a) - a)).flatten(1)",
        "tests/test_annealed.py -k noise_on_the_measurement",
    ),
    Mutant(
        "a gain without the noise",
        "samplers/enkg.py",
        "W.T @ W + one",
        "W.T @ W + 1e-9 * one",
        "tests/test_annealed.py -k noise_on_the_measurement",
    ),
    Mutant(
        "auto takes guidance alone for a mixture",
        "choice.py",
        "        return _WEIGHED",
        "        return _LINEAR",
        "tests/test_choice.py -k each_row",
    ),
    Mutant(
        "any map passes for linear",
        "forward.py",
        "_CLOSE * both.norm())",
        "1e3 * both.norm())",
        "tests/test_forward.py -k found_out",
    ),
    Mutant(
        "a derivative along twice the step",
        "forward.py",
        "return torch.autograd.grad(pulled, w, v)[0]",
        "return 2 * torch.autograd.grad(pulled, w, v)[0]",
        "tests/test_forward.py -k both_ways",
    ),
    Mutant(
        "DPS takes a bent operator for straight",
        "forward.py",
        "return self(v) if self.linear else push(self, x, v)",
        "return self(v)",
        "tests/test_choice.py -k misfit_falls",
    ),
    Mutant(
        "progress takes a failed unit for a finished one",
        "run/screen.py",
        "if isinstance(event, Done) and last",
        "if last",
        "tests/test_screen.py -k a_failed_unit",
    ),
    Mutant(
        "chi2 of finished units is not weighed by their samples",
        "run/screen.py",
        "sum(n * chi2 for n, chi2 in finished)",
        "sum(chi2 for n, chi2 in finished)",
        "tests/test_screen.py -k weighed",
    ),
    Mutant(
        "a unit forgets what a prior step costs",
        "run/units.py",
        'calls = 1 + sampler.get("prior_steps", 0)',
        "calls = 1",
        "tests/test_resume.py -k cost_counts",
    ),
    Mutant(
        "a preset wins over what is given",
        "run/presets.py",
        "return settings.merge(found.for_operator(None if operator is None else str(operator)), given)",
        "return settings.merge(given, found.for_operator(None if operator is None else str(operator)))",
        "tests/test_presets.py -k flags_win",
    ),
    Mutant(
        "the unit of VP's noise is lost in g",
        "sde.py",
        "return self.unit * self.beta(t).sqrt()",
        "return self.beta(t).sqrt()",
        "tests/test_sde.py -k derivatives",
    ),
    Mutant(
        "the evidence of sets is summed",
        "run/outputs.py",
        "float(each.logsumexp(0) - math.log(len(each)))",
        "float(each.logsumexp(0))",
        "tests/test_run_choice.py -k particle_sets",
    ),
    Mutant(
        "a set's evidence is that of its first step",
        "samplers/smc.py",
        "([ess], [last.log_evidence])",
        "([ess], [0.0])",
        "tests/test_choice.py -k sizes_and_the_evidence",
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
