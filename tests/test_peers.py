"""Other libraries as rows of the benchmark: the same problem in their units, counted, and nothing hidden."""

import json
import warnings

import pytest
import torch

from invsolve import cli
from invsolve.bench import peers
from invsolve.bench.images import image_problem
from invsolve.bench.methods import method
from invsolve.bench.mixtures import mixture_problem
from invsolve.bench.peers import Draw, Peer, PeerFailed, Scaled, peer, peers_of
from invsolve.bench.posterior import Plan, measure, rows_of
from invsolve.bench.record import Record
from invsolve.bench.summary import cells, tables
from invsolve.diagnostics import distance, floor
from invsolve.errors import InputError, UnknownName


@pytest.fixture(autouse=True)
def warned():
    """The libraries warn of what they do themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


PROBLEMS = {"mixture": lambda: mixture_problem(8, 2, 0), "deblur": lambda: image_problem("deblur", 12, 0)}


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("bottom", [0.0, -1.0])
def test_a_scaled_problem_is_the_same_problem(kind, bottom):
    posed = PROBLEMS[kind]()
    scaled = Scaled(posed, bottom, 1.0)
    u = torch.linspace(bottom, 1, 3, dtype=torch.float64)[:, None] * torch.ones(3, scaled.table.shape[1])
    x = scaled.restore(u)
    unit = float((x[1] - x[0]).mean() / (u[1] - u[0]).mean())  # of u in the problem's own units
    residual = posed.likelihood.residual(x).double().flatten(1)
    torch.testing.assert_close(scaled.y - scaled.A(u), residual / unit, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scaled.A(u), u @ scaled.table.mT, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scaled.At(scaled.y[None], u[:1]), (scaled.y @ scaled.table)[None])
    assert scaled.sigma_y == pytest.approx(float(posed.likelihood.sigma_y) / unit, rel=1e-4)
    own = posed.prior.denoise(x, torch.full((3,), 0.3 * unit, dtype=torch.float64))
    torch.testing.assert_close(scaled.restore(scaled.denoise(u, 0.3)), own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_data_is_inside_the_range_of_the_peer(kind):
    posed = PROBLEMS[kind]()
    scaled = Scaled(posed, 0.0, 1.0)
    ends = scaled.restore(torch.tensor([[0.0], [1.0]]).expand(2, scaled.table.shape[1]))
    drawn = posed.prior.sample(500, 1)
    assert float(((drawn < ends[0]) | (drawn > ends[1])).double().mean()) < 1e-4  # 4 standard deviations


def test_products_with_the_jacobian_are_counted_under_both_kinds_of_autograd():
    scaled = Scaled(mixture_problem(8, 2, 0), 0.0, 1.0)
    u = torch.full((3, 8), 0.5, requires_grad=True)
    out = scaled.denoise(u, 0.1)
    for _ in range(2):
        torch.autograd.grad(out, u, torch.ones_like(out), retain_graph=True)
    _, pull = torch.func.vjp(lambda v: scaled.denoise(v, torch.tensor(0.1)), u.detach())
    pull(torch.ones(3, 8))
    assert scaled.calls == {"forward": 6, "vjp": 9}


@pytest.mark.slow
def test_moment_matching_of_deepinv_reaches_the_floor_through_the_adapter():
    """Exact for Gaussian priors: a wrong unit, operator or noise level anywhere would show."""
    posed = image_problem("superres", 12, 0)
    samples = peer("deepinv/moment-matching-cg30").draw(posed, 200, 0, 200).samples
    floors = torch.tensor([f.mean_error for f in floor(posed.exact, 200, repeats=6)])
    found = distance(samples, posed.exact)
    assert found.mean_error < float(floors.mean() + 5 * floors.std()) + 0.02  # and what Euler's steps err
    assert abs(found.sd_ratio - 1) < 0.04


@pytest.mark.parametrize("name", peers_of("deepinv"))
def test_every_method_of_deepinv_runs_on_vectors_and_images(name):
    for posed in (mixture_problem(8, 2, 0), image_problem("colorize", 12, 0)):
        result = method(name).draw(posed, 3, 0, 4)
        assert result.samples.shape == (3, *posed.prior.event)
        assert torch.isfinite(result.samples).all()
        assert 4 <= result.nfe["forward"] <= 6  # the steps, and perhaps a last mean
        assert (result.nfe["vjp"] > 0) == (name not in ("deepinv/ddrm", "deepinv/diffpir"))


@pytest.mark.parametrize("name", ["deepinv/dps", "deepinv/pigdm", "deepinv/ddrm", "deepinv/diffpir"])
def test_a_peer_obeys_its_seed_and_leaves_the_global_generator_alone(name):
    posed, before = mixture_problem(8, 2, 0), torch.get_rng_state()
    first, again, other = (peer(name).draw(posed, 2, seed, 4).samples for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_azula_runs_where_it_is_installed():
    pytest.importorskip("azula")
    for name in peers_of("azula"):
        result = method(name).draw(mixture_problem(8, 2, 0), 3, 0, 5)
        assert torch.isfinite(result.samples).all()
        assert result.nfe["forward"] == 5


def test_what_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(peers.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'azula is not installed: pip install "invsolve\[bench\]"'):
        method("azula/mmps")


def test_a_method_or_library_that_there_is_not_is_named():
    with pytest.raises(UnknownName, match="Did you mean 'pigdm'"):
        method("deepinv/pigd")
    with pytest.raises(UnknownName, match="Did you mean 'deepinv'"):
        peers_of("deepin")


def explode(scaled, n, steps, seed):
    raise RuntimeError("mat1 and mat2\nand a trace")


def melt(scaled, n, steps, seed):
    return torch.full((n, 8), torch.nan)


def test_a_peer_that_raises_or_gives_nan_says_so_in_its_cell(tmp_path, monkeypatch):
    made = {"deepinv/explode": Draw(0, 1, explode), "deepinv/melt": Draw(0, 1, melt)}
    monkeypatch.setattr("invsolve.bench.posterior.method", lambda name: Peer(name, made[name]))
    planned = Plan(((8, 2),), (), 12, tuple(made), True, seeds=2, samples=20, steps=3)
    record = Record(tmp_path / "r.json", {}, overwrite=False)
    for _ in measure(planned, record):
        pass
    shown = tables(cells(rows_of(record, planned))).splitlines()
    assert shown[2].endswith("| 2 | 2 failed |")
    assert shown[3].endswith("| 2 | 2 diverged |")
    assert shown[5] == "- deepinv/explode on mixture 8/2: RuntimeError: mat1 and mat2"
    with pytest.raises(PeerFailed):
        Peer("deepinv/explode", made["deepinv/explode"]).draw(mixture_problem(8, 2, 0), 2, 0, 1)


@pytest.mark.slow
def test_the_command_takes_a_library_and_single_rows(tmp_path, capsys):
    problem = [
        "--dx",
        "8",
        "--dy",
        "1",
        "--images",
        "none",
        "--seeds",
        "1",
        "--samples",
        "10",
        "--steps",
        "3",
    ]
    rows = ["--methods", "exact", "--peers", "deepinv", "--out", str(tmp_path), "--json"]
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "posterior", *problem, *rows])
    assert end.value.code == 0
    found = [cell["method"] for cell in json.loads(capsys.readouterr().out)["cells"]]
    assert found == ["exact", *peers_of("deepinv")]
