"""invsolve calibrate: on priors whose posterior is known the right solver passes and a wrong one fails."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from problems import gaussian_prior, masking, plane_mixture, random_matrix
from running import invsolve

from invsolve import PC, calibrate, metrics, operators
from invsolve.calibration.journal import Journal
from invsolve.calibration.report import LEVEL, conclude
from invsolve.calibration.simulate import Experiment, Outcome, Simulator, photos
from invsolve.errors import Divergence, InputError, Refused
from invsolve.exact import exact_posterior
from invsolve.prior import Prior
from invsolve.result import Result

PLANE = operators.matrix(torch.tensor([[1.0, 0.5]], dtype=torch.float64))
GAUSSIAN = (gaussian_prior(3), random_matrix(3, 4), 0.05)
PROBLEMS = {"gaussian": GAUSSIAN, "mixture": (plane_mixture(), PLANE, 0.3)}


def exact(posterior, n, seed, first=0):
    """Draw the posterior itself: a sampler without any error."""
    return exact_posterior(posterior.prior, posterior.likelihood).sample(n, seed, first)


def measured(name, **options):
    prior, operator, sigma_y = PROBLEMS[name]
    return calibrate(prior, operator, sigma_y, **{"problems": 100, "samples": 15} | options)


# ---- what passes and what fails


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("seed", range(3))
def test_draws_of_the_exact_posterior_pass(name, seed):
    assert measured(name, sampler=exact, seed=seed).failed == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_solver_that_is_told_another_noise_level_fails(name, scale):
    found = measured(name, sampler=exact, assumed_sigma_y=scale * PROBLEMS[name][2])
    assert not found.passed
    assert (found.chi2 > 1.5) is (scale > 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_samples_that_are_narrower_or_wider_fail(name):
    def scaled(factor):
        def sampler(posterior, n, seed, first=0):
            x = exact(posterior, n, seed, first)
            mean = exact_posterior(posterior.prior, posterior.likelihood).mean
            return mean + factor * (x - mean)

        return measured(name, sampler=sampler)

    narrow, wide = scaled(0.6), scaled(1.6)
    assert not narrow.passed
    assert "variance_ratio" in wide.failed
    assert narrow.variance_ratio < 0.7 < 1.4 < wide.variance_ratio


FEW = {"problems": 60, "samples": 7}
WRONG = [{"gamma": 2.0}, {"assumed_sigma_y": 0.1}, {"guidance": "dps"}]


@pytest.mark.slow
@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_moment_matching_passes_on_gaussians(sde):
    assert measured("gaussian", sde=sde, guidance="moment-matching", **FEW).failed == []


@pytest.mark.slow
@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_exact_guidance_passes_on_mixtures(sde):
    assert measured("mixture", sde=sde, guidance="exact", **FEW).failed == []


@pytest.mark.slow
@pytest.mark.parametrize("sde", ["ve", "vp"])
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_tempered_mis_scaled_and_dps_solvers_fail_on_gaussians(sde, wrong):
    found = measured("gaussian", sde=sde, **{"guidance": "exact"} | wrong, **FEW)
    assert "chi2" in found.failed


def test_what_is_calibrated_is_what_solve_takes_and_is_told():
    """Nothing named: particles on a mixture, as in solve, where guidance alone weighs modes wrongly."""
    found = measured("mixture", problems=2, samples=3)
    assert found.chosen.startswith("smc with moment-matching: ")
    assert found.as_dict()["chosen"] == found.chosen
    assert measured("mixture", problems=2, samples=3, guidance="exact", sampler="pc", steps=3).chosen == ""


# ---- the experiment


def simulator(prior, operator, sigma_y=0.05, **options):
    return Simulator(prior, operator, sigma_y, prior.shape, **options)


def experiment(samples=3, sampler=exact, seed=0):
    prior, operator, sigma_y = GAUSSIAN

    def solver(likelihood, n, own):
        from invsolve import Posterior

        return Result(sampler(Posterior(prior, likelihood), n, own), nfe={"forward": 2.0})

    return Experiment(simulator(prior, operator, sigma_y, seed=seed), solver, samples)


def test_a_problem_depends_on_seed_and_number_alone():
    few, many = experiment(3).outcome(5).figures, experiment(6).outcome(5).figures
    other = experiment(3, seed=1).outcome(5).figures
    for name, row in few.quantities.items():
        assert np.allclose(many.quantities[name][:4], row)
    assert not np.allclose(other.quantities["mean"], few.quantities["mean"])
    assert not np.allclose(experiment(3).outcome(6).figures.chi2, few.chi2)


def test_the_noise_has_its_level_and_lies_on_measured_entries_alone():
    own = simulator(gaussian_prior(16), masking(16))
    truth = own.truth(0)
    noise = torch.stack([own.measure(k, truth) - own.operator.A(truth[None])[0] for k in range(4)])
    assert (noise[:, ~own.known] == 0).all()
    z = noise[:, own.known] / 0.05
    assert abs(float(z.square().mean()) - 1) < 4 * (2 / z.numel()) ** 0.5  # four standard errors


def test_truth_reference_and_samples_are_independent():
    """Correlations of their white coordinates over 300 problems are those of chance."""
    prior, operator, _ = GAUSSIAN
    own = simulator(prior, operator)
    rows = [(own.truth(k), own.draw("reference", k)) for k in range(300)]
    first, second = (torch.stack(each)[:, 0, 0, 0] for each in zip(*rows, strict=True))
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 4 / 300**0.5


class Learned(Prior):
    """A prior that cannot draw itself: independent values N(0.5, 0.04)."""

    shape = (1, 8, 8)

    def denoise(self, x, sigma):
        gain = 0.04 / (0.04 + sigma.reshape(-1, 1, 1, 1) ** 2).to(x)
        return 0.5 + gain * (x - 0.5)


def test_a_learned_prior_is_drawn_by_the_default_sampler():
    own = simulator(Learned(), operators.denoise((1, 8, 8)))
    truths = torch.stack([own.truth(k) for k in range(4)])
    assert abs(float(truths.mean()) - 0.5) < 4 * 0.2 / 256**0.5  # four standard errors over 256 pixels
    assert float(truths.var()) == pytest.approx(0.04, rel=4 * (2 / 256) ** 0.5)
    assert not torch.equal(truths[0], truths[1])


def test_the_quantities_see_measured_and_hidden_values():
    own = Experiment(simulator(gaussian_prior(4), masking(4)), experiment().solver, 3)
    names = list(own.quantities.values)
    assert [name.split()[0] for name in names] == ["seen", "seen", "hidden", "hidden"]
    seen = own.simulator.known
    for name, i in own.quantities.values.items():
        assert bool(seen[i]) is name.startswith("seen")


def test_dispersion_is_that_of_the_metrics():
    """Of a single problem; so the same one twice."""
    own = experiment(6)
    outcome = own.outcome(0)
    _, operator, sigma_y = GAUSSIAN
    samples = []

    def keep(posterior, n, seed, first=0):
        samples.append(exact(posterior, n, seed, first))
        return samples[-1]

    experiment(6, keep).outcome(0)
    found = conclude([outcome, outcome], 6, 0)
    truth = own.simulator.truth(0)
    assert found.dispersion == pytest.approx(metrics.dispersion(samples[0], truth), rel=1e-6)
    assert found.coverage["90"] == metrics.coverage90(samples[0], truth)
    y = own.simulator.measure(0, truth)
    assert found.chi2 == pytest.approx(metrics.chi2(samples[0], y, operator, sigma_y), rel=1e-6)
    assert found.nfe == {"forward": 2.0}


def test_a_solve_that_diverges_is_counted_and_fails():
    def diverge(posterior, n, seed, first=0):
        raise Divergence("step 3 of 5: NaN.")

    good, bad = experiment().outcome, experiment(sampler=diverge).outcome
    found = conclude([good(0), bad(1), good(2)], 3, 0)
    assert (found.diverged, found.failed[-1]) == (1, "diverged")
    assert "1 diverged" in found.text()
    with pytest.raises(Divergence, match="2 of 2"):
        conclude([bad(0), bad(1)], 3, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"problems": 1}, "problems must be at least 2"),
        ({"problems": 2, "samples": 1}, "samples must be at least 2"),
        ({"sampler": PC(antithetic=True)}, "antithetic"),
        ({"truths": lambda k: torch.zeros(5)}, "truth 0 has shape"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(options, words):
    with pytest.raises((InputError, Refused), match=words):
        measured("gaussian", **{"sampler": exact} | options)
    with pytest.raises(InputError, match="sigma_y"):
        calibrate(plane_mixture(), PLANE, 0.0)


def test_photos_are_cropped_and_those_too_small_refused(tmp_path):
    pixels = np.arange(20 * 30 * 3).reshape(20, 30, 3) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    crop = photos(tmp_path, (3, 16, 16), 0)
    whole = torch.from_numpy(pixels / 255).permute(2, 0, 1).float()
    windows = whole.unfold(1, 16, 1).unfold(2, 16, 1)
    for k in range(3):
        assert torch.equal(crop(k), crop(k))
        assert bool((windows == crop(k)[:, None, None]).all(-1).all(-1).all(0).any())
    with pytest.raises(InputError, match="cannot be cut"):
        photos(tmp_path, (3, 24, 24), 0)(0)


# ---- the command

PARTS = '''
import torch
from invsolve import GaussianPrior, exact_posterior, operators

def gaussian():
    """Independent values."""
    return GaussianPrior(0.5 + torch.zeros(1, 6, 6), 0.04)

def vector():
    return GaussianPrior(torch.zeros(6), torch.eye(6) * 0.5 + 0.5)

def sums(shape):
    """Sums of neighbours."""
    return operators.matrix(torch.eye(6)[:4] + torch.eye(6)[1:5], shape)

class _Bare:
    def __init__(self, shape, A):
        self.shape, self.A = shape, A

def bare(shape): return _Bare(shape, lambda x: x[..., ::2])
def black(shape): return _Bare(shape, lambda x: torch.from_numpy(x.detach().numpy()[..., ::3, ::3].copy()))
def nothing(shape): return _Bare(shape, lambda x: 0 * x)

def exactly():
    def sampler(posterior, n, seed, first=0):
        return exact_posterior(posterior.prior, posterior.likelihood).sample(n, seed, first)
    return sampler
'''


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Working directory with mine.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PARTS)


def command(*words, prior="gaussian", operator="inpaint"):
    own = ("--prior", f"./mine.py:{prior}", "--operator", operator, "--sampler", "./mine.py:exactly")
    return invsolve("calibrate", *own, "--device", "cpu", *words)


@pytest.mark.usefixtures("parts")
def test_the_command_prints_the_figures_and_writes_them_with_a_picture():
    words = ["--keep", "0.5", "--sigma-y", "0.1", "--problems", "20", "--samples", "7", "--out", "a"]
    code, out, err = command(*words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads(Path("a/calibration.json").read_text())
    assert Path("a/calibration.png").read_bytes().startswith(b"\x89PNG")
    assert set(found["coverage"]) == {"50", "90", "95"}
    assert {"sbc", "tarp", "chi2", "variance_ratio"} <= set(found)
    assert found["passed"] is True
    assert found["settings"]["operator"]["keep"] == 0.5
    assert "20 of 20 problems" in err


@pytest.mark.usefixtures("parts")
def test_the_verdict_is_told_in_words_and_a_wrong_noise_level_fails():
    words = ["--problems", "30", "--samples", "7", "--sigma-y", "0.1", "--quiet"]
    _, right, err = command(*words)
    _, wrong, _ = command(*words, "--assumed-sigma-y", "0.2")
    assert err == ""
    assert right.splitlines()[-1].startswith("passed (30 problems x 7 samples")
    assert wrong.splitlines()[-1].startswith("FAILED: ")
    assert f"{LEVEL:.0%}" in right


@pytest.mark.usefixtures("parts")
def test_events_of_any_shape_and_operators_of_a_file_will_do():
    words = ["--problems", "10", "--samples", "4", "--quiet", "--json"]
    code, out, err = command(*words, prior="vector", operator="./mine.py:sums")
    assert code == 0, err
    assert json.loads(out)["problems"] == 10


@pytest.mark.usefixtures("parts")
def test_an_operator_without_an_adjoint_is_calibrated_too():
    words = ["--problems", "3", "--samples", "3", "--sampler", "pc", "--steps", "3", "--quiet", "--json"]
    code, out, err = command(*words, operator="./mine.py:bare")
    assert code == 0, err
    assert json.loads(out)["problems"] == 3


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("operator", "taken"), [("inpaint", "pc with moment-matching: "), ("./mine.py:black", "enkg: ")]
)
def test_the_command_says_what_auto_took_and_why(operator, taken):
    words = [
        "--prior",
        "./mine.py:gaussian",
        "--problems",
        "2",
        "--samples",
        "2",
        "--device",
        "cpu",
        "--json",
    ]
    code, out, err = invsolve("calibrate", "--operator", operator, *words)
    assert code == 0, err
    assert f"auto took {taken}" in err
    assert json.loads(out)["chosen"].startswith(taken)


@pytest.mark.usefixtures("parts")
def test_an_operator_that_measures_nothing_is_refused_before_the_work():
    code, _, err = command("--problems", "3", operator="./mine.py:nothing")
    assert code == 7
    assert "measures nothing" in err
    assert "problems" not in err


@pytest.mark.usefixtures("parts")
def test_a_folder_that_cannot_be_written_is_found_before_the_work():
    Path("taken").write_text("a file")
    code, _, err = command("--problems", "3", "--out", "taken")
    assert code == 5
    assert "problems" not in err


@pytest.mark.usefixtures("parts")
def test_truths_may_be_photos():
    Path("photos").mkdir()
    Image.fromarray(np.full((16, 16), 255, dtype=np.uint8)).save("photos/white.png")
    words = ["--problems", "6", "--samples", "5", "--quiet", "--json", "--truths", "photos"]
    code, out, err = command(*words)
    assert code == 0, err
    assert json.loads(out)["coverage"]["90"] < 0.7  # white is not what the prior expects: 2.5 sd away


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photo.png"], "takes no INPUT"),
        (["--problems", "1"], "problems must be at least 2"),
        (["--sigma-y", "0"], "sigma_y"),
        (["--sigma-y", "25"], "Did you mean 25/255"),
        (["--size", "a"], "--size"),
        (["--size", "8"], "does not fit"),
        (["--kep", "0.2"], "--kep"),
        (["--truths", "nowhere", "--problems", "2"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words, told):
    code, _, err = command(*words)
    assert code == 2
    assert told in err


# ---- stopped and taken up again

COUNTED = """
def counted():
    from pathlib import Path
    def sampler(posterior, n, seed, first=0):
        solved = Path("solved")
        count = int(solved.read_text()) if solved.exists() else 0
        if count == 4 and not Path("go").exists():
            raise KeyboardInterrupt
        solved.write_text(str(count + 1))
        return exactly()(posterior, n, seed, first)
    return sampler
"""
STUDY = ("--sigma-y", "0.1", "--samples", "5", "--sampler", "./mine.py:counted", "--json")


@pytest.fixture
def stopped(parts):
    """The outcome of a study of 9 problems in a/, stopped at the fifth."""
    Path("mine.py").write_text(PARTS + COUNTED)
    return command(*STUDY, "--problems", "9", "--out", "a")


def go_on(*words):
    """What the command says when nothing stops it, but for the time it took, and how many it solved."""
    Path("go").touch()
    Path("solved").write_text("0")
    code, out, err = command(*STUDY, *words)
    assert code == 0, err
    return {k: v for k, v in json.loads(out).items() if k != "seconds"}, int(Path("solved").read_text())


def test_a_study_that_was_stopped_goes_on_to_the_same_figures(stopped):
    code, out, err = stopped
    assert (code, out) == (130, "")
    assert "interrupted: with --out, solved problems are kept, and the same command goes on." in err
    with Path("a/problems.jsonl").open("a") as file:
        file.write('{"problem": 4, "figu')  # as kill -9 leaves it
    assert go_on("--problems", "9", "--out", "a") == (go_on("--problems", "9")[0], 5)
    assert go_on("--problems", "9", "--out", "a")[1] == 0
    assert go_on("--problems", "12", "--out", "a") == (go_on("--problems", "12")[0], 3)
    assert go_on("--problems", "4", "--out", "a") == (go_on("--problems", "4")[0], 0)


@pytest.mark.usefixtures("stopped")
def test_another_study_is_refused_unless_it_may_overwrite():
    Path("go").touch()
    code, _, err = command(*STUDY, "--problems", "9", "--out", "a", "--seed", "1")
    assert code == 2
    assert "a holds another study: run.seed: 0 -> 1. Add --overwrite" in err
    assert go_on("--problems", "9", "--out", "a", "--seed", "1", "--overwrite")[1] == 9


DAMAGE = {
    "another file": lambda text: "notes of mine",
    "another JSON": lambda text: "[]\n",
    "a shorter row": lambda text: text.replace('"distance": [', '"distance": [1.0, ', 1),
    "nothing": lambda text: "",
}


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_is_refused_and_stays(damage):
    kept = Path("a/problems.jsonl")
    kept.write_text(damaged := DAMAGE[damage](kept.read_text()))
    code, _, err = command(*STUDY, "--problems", "9", "--out", "a")
    assert code == 2
    assert "problems.jsonl is damaged" in err
    assert kept.read_text() == damaged


@pytest.mark.usefixtures("stopped")
def test_a_study_that_overwrites_leaves_nothing_of_the_other():
    Path("a/calibration.json").touch()
    Path("solved").write_text("4")  # so that it is stopped before its first problem
    code, _, err = command(*STUDY, "--problems", "9", "--out", "a", "--seed", "1", "--overwrite")
    assert code == 130
    assert "the same command, without --overwrite, goes on" in err
    assert not Path("a").exists() or not [*Path("a").iterdir()]


@pytest.mark.usefixtures("stopped")
def test_a_part_whose_file_changed_makes_another_study():
    with Path("mine.py").open("a") as file:
        file.write("# improved")
    code, _, err = command(*STUDY, "--problems", "9", "--out", "a")
    assert code == 2
    assert "holds another study: prior.name sha256" in err


@pytest.mark.usefixtures("stopped")
def test_the_same_study_in_other_words_goes_on(tmp_path, monkeypatch):
    """Moved, and with the defaults said."""
    (tmp_path / "moved").mkdir()
    for name in ("mine.py", "a", "solved"):
        Path(name).rename(f"moved/{name}")
    monkeypatch.chdir("moved")
    words = [
        "--gamma",
        "1.0",
        "--size",
        "6",
        "--assumed-sigma-y",
        "0.1",
        "--prior",
        f"{Path.cwd()}/mine.py:gaussian",
    ]
    assert go_on("--problems", "9", "--out", "a", *words)[1] == 5


def test_a_diverged_problem_is_kept_too(tmp_path):
    kept = Journal(tmp_path, {"seed": 0})
    kept.add(2, Outcome(None, {}))
    assert Journal(tmp_path, {"seed": 0}).outcomes == {2: Outcome(None, {})}


@pytest.mark.usefixtures("parts")
def test_problems_are_solved_by_one_thread():
    """Sums of several differ in their last bits, and so would the figures of a study that goes on."""
    own = "def threads():\n    def sampler(posterior, n, seed, first=0):\n"
    own += "        assert torch.get_num_threads() == 1\n"
    own += "        return exactly()(posterior, n, seed, first)\n    return sampler\n"
    Path("mine.py").write_text(PARTS + own)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        code, _, err = command(*STUDY, "--problems", "2", "--sampler", "./mine.py:threads")
        assert (code, torch.get_num_threads()) == (0, 2), err
    finally:
        torch.set_num_threads(before)
