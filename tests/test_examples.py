"""The examples run, and say no when what they claim is not so."""

import importlib.util
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("parts", [[], ["--predictor", "dpmpp", "--corrector", "none", "--steps", "60"]])
def test_four_gaussians_are_sampled_right(parts, capsys):
    assert example("four_gaussians").main(parts) == 0
    assert "within 5 sd of a mode: 100.00%" in capsys.readouterr().out


def test_four_gaussians_fails_in_words_after_too_few_steps(capsys):
    assert example("four_gaussians").main(["--steps", "8"]) == 1
    assert "further than 5 sd" in capsys.readouterr().err


def test_four_gaussians_refuses_a_sampler_without_parts_in_words(capsys):
    assert example("four_gaussians").main(["--predictor", "none", "--corrector", "none"]) == 1
    assert "neither a predictor nor a corrector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, m: x + 0.6, "further than 5 sd"),
        (lambda x, m: torch.where(x[:, :1] * x[:, 1:] > 0, x, -x.flip(1)), None),
        (lambda x, m: torch.cat([x[:3600], m[:1].expand(400, 2)]), "weight differs"),
        (
            lambda x, m: m.repeat_interleave(1000, 0) + 0.8 * (x - m.repeat_interleave(1000, 0)),
            "standard deviation",
        ),
    ],
)
def test_four_gaussians_sees_each_fault(spoil, words, capsys):
    module = example("four_gaussians")
    rng = torch.Generator().manual_seed(0)
    exact = module.MODES.repeat_interleave(1000, 0) + 0.1 * torch.randn(4000, 2, generator=rng)
    found = module.faults(spoil(exact, module.MODES), steps=1000)
    assert found == [] if words is None else any(words in fault for fault in found)


def test_four_gaussians_plots_where_it_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = example("four_gaussians")
    module.plot(module.MODES)
    assert (tmp_path / "four_gaussians.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_photo_is_restored_to_the_noise_of_its_measurement(capsys):
    example("inpaint_photo").main([])
    words = capsys.readouterr().out.split()
    sample, mean = (
        float(words[i + 1].rstrip(",")) for i, word in enumerate(words) if word in ("sample", "mean")
    )
    chi2 = float(words[words.index("chi2") + 1].rstrip(";"))
    assert mean > sample > 15  # dB; the mean of two independent samples has 3/4 of a sample's squared error
    assert 0.7 < chi2 < 1.5  # 1 for a right posterior; 25 steps leave about 0.2 too much
