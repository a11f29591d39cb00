"""guided-diffusion files: the layout from the shapes, D by its formula, and what is refused."""

import dataclasses
import math

import pytest
import torch
from adm_reference import Reference
from checkpoint_files import assert_denoises_as, randomised, refusal
from safetensors.torch import save_file

from invsolve.errors import UnknownName
from invsolve.priors.catalogue import load_prior
from invsolve.priors.checkpoints.adm import read_layout
from invsolve.priors.checkpoints.adm_unet import ADMLayout, ADMUNet

LAYOUT = ADMLayout(3, 6, 32, (32, 64), 1, (False, True), True, "block", 0, 2)
HINTS = {"num_heads": 2, "attention_order": "legacy", "noise_schedule": "linear", "image_size": 16}


@pytest.fixture
def network():
    return randomised(ADMUNet(LAYOUT))


@pytest.fixture
def file(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def linear_abar(steps=1000):
    """Product of 1 - beta up to each step, by hand."""
    abar, product = [], 1.0
    for i in range(steps):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / (steps - 1))
        abar.append(product)
    return abar


def cosine_abar(steps=1000):
    bar = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
    abar, product = [], 1.0
    for i in range(steps):
        product *= 1 - min(1 - bar[i + 1] / bar[i], 0.999)
        abar.append(product)
    return abar


def step_of(sigma, abar):
    """Step between the two trained levels around sigma, linear in ln(sigma)."""
    logs = [0.5 * math.log(1 / a - 1) for a in abar]
    wanted = math.log(sigma)
    i = max(k for k in range(len(logs) - 1) if logs[k] <= wanted)
    return i + (wanted - logs[i]) / (logs[i + 1] - logs[i])


def by_formula(network, abar, *more):
    """x - sigma noise(x / sqrt(1 + sigma^2), step), taken from [-1, 1] to [0, 1]."""

    def denoise(x, level):
        sigma, net = 2 * level, 2 * x - 1
        step = torch.full((len(x),), step_of(sigma, abar))
        noise = network(net / math.sqrt(1 + sigma**2), step, *more)[:, :3]
        return (net - sigma * noise + 1) / 2

    return denoise


@pytest.mark.parametrize(("schedule", "abar"), [("linear", linear_abar()), ("cosine", cosine_abar())])
def test_an_adm_file_denoises_by_its_formula(file, network, schedule, abar):
    prior = load_prior(file, **HINTS | {"noise_schedule": schedule})
    assert_denoises_as(prior, by_formula(network, abar))
    assert prior.shape == (3, 16, 16)
    assert prior.sigma_min == pytest.approx(math.sqrt(1 / abar[0] - 1) / 2, rel=1e-6)
    assert prior.sigma_max == pytest.approx(math.sqrt(1 / abar[-1] - 1) / 2, rel=1e-6)


CHANGES = [
    {"resample": "conv"},
    {"resample": "pool"},
    {"scale_shift": False},
    {"widths": (32, 32, 64), "attention": (False, True, True)},
    {"widths": (32,), "attention": (True,)},
    {"blocks": 2},
    {"out_channels": 3},
    {"in_channels": 1, "out_channels": 2},
    {"classes": 4},
    {"channels": 64},
]
HEADS = [{"heads": 4}, {"heads": 4, "new_order": True}, {"head_channels": 32}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_layout_is_read_from_names_and_shapes(tmp_path, change):
    layout = dataclasses.replace(LAYOUT, heads=1, **change)
    if layout.widths == (32,):
        layout = dataclasses.replace(layout, resample="pool")  # there is nothing to resample
    assert read_layout(tmp_path, ADMUNet(layout).state_dict()) == layout


@pytest.mark.parametrize("change", [*CHANGES, *HEADS], ids=str)
def test_the_network_is_that_of_the_paper(change):
    layout = dataclasses.replace(LAYOUT, **{"heads": 2, **change})
    if layout.widths == (32,):
        layout = dataclasses.replace(layout, resample="pool")
    network = randomised(ADMUNet(layout))
    heads = layout.widths[-1] // layout.head_channels if layout.head_channels else layout.heads
    second = Reference(network.state_dict(), layout.channels, heads, layout.new_order)
    x, step = torch.randn(2, layout.in_channels, 8, 8), torch.tensor([3.0, 640.5])
    label = torch.tensor([0, 2]) if layout.classes else None
    expected = second(x, step, label, blocks=layout.blocks, levels=len(layout.widths))
    assert (network(x, step, label) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("heads", [{"num_heads": 4}, {"num_head_channels": 16}])
def test_heads_and_their_order_are_as_told(file, network, order, heads):
    told = dataclasses.replace(
        LAYOUT,
        heads=heads.get("num_heads", 1),
        head_channels=heads.get("num_head_channels"),
        new_order=order == "new",
    )
    other = ADMUNet(told).eval()
    other.load_state_dict(network.state_dict())
    prior = load_prior(file, **{**HINTS, "num_heads": None, "attention_order": order, **heads})
    assert_denoises_as(prior, by_formula(other, linear_abar()))


def test_the_order_of_heads_matters_and_one_head_has_none(network):
    x, step = torch.rand(1, 3, 16, 16), torch.tensor([10.0])
    outs = []
    for heads, new in ((4, False), (4, True), (1, False), (1, True)):
        other = ADMUNet(dataclasses.replace(LAYOUT, heads=heads, new_order=new)).eval()
        other.load_state_dict(network.state_dict())
        outs.append(other(x, step))
    assert (outs[0] - outs[1]).abs().max() > 1e-3
    torch.testing.assert_close(outs[2], outs[3])


def test_a_class_conditional_file_draws_from_the_class_told(tmp_path):
    network = randomised(ADMUNet(dataclasses.replace(LAYOUT, classes=4)))
    torch.save(network.state_dict(), tmp_path / "c.pt")
    assert "--prior.class-labels" in refusal(tmp_path / "c.pt", **HINTS)
    assert "has 4 classes" in refusal(tmp_path / "c.pt", **HINTS, class_labels=4)
    prior = load_prior(tmp_path / "c.pt", **HINTS, class_labels=2)
    assert_denoises_as(prior, by_formula(network, linear_abar(), torch.tensor([2, 2])))


@pytest.mark.parametrize("container", ["old", "half", "parallel", "nested", "safetensors"])
def test_the_same_weights_load_from_every_container(tmp_path, network, container):
    state, path = network.state_dict(), tmp_path / "tiny.pt"
    if container == "old":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif container == "half":
        torch.save({k: v.half() for k, v in state.items()}, path)
        network = network.half().float()
    elif container == "parallel":
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    elif container == "nested":
        torch.save({"state_dict": state, "step": 7}, path)
    else:
        save_file(state, path)
    assert_denoises_as(load_prior(path, **HINTS), by_formula(network, linear_abar()))


@pytest.mark.parametrize("name", ["num_heads", "attention_order", "noise_schedule", "image_size"])
def test_what_the_file_cannot_tell_is_asked_by_name(file, name):
    message = refusal(file, **{k: v for k, v in HINTS.items() if k != name})
    assert f"does not tell {name}" in message
    assert "--prior." in message


def test_the_order_of_attention_is_asked_where_a_width_of_heads_makes_many_of_one(file):
    told = {"num_heads": 1, "num_head_channels": 16, "noise_schedule": "linear", "image_size": 16}
    assert "does not tell attention_order" in refusal(file, **told)
    both = load_prior(file, **told | {"num_heads": 3, "attention_order": "new"})  # the width wins, as in ADM
    one = load_prior(file, **told | {"num_heads": None, "attention_order": "new"})
    assert both.metadata["head_channels"] == one.metadata["head_channels"] == "16"


def test_hints_may_lie_beside_the_file_and_arguments_win(file, network):
    file.with_name("prior.toml").write_text(
        'num-heads = 2\nattention_order = "legacy"\nnoise-schedule = "cosine"\nimage_size = 16\n'
    )
    assert_denoises_as(load_prior(file), by_formula(network, cosine_abar()))
    assert_denoises_as(load_prior(file, noise_schedule="linear"), by_formula(network, linear_abar()))
    file.with_name("prior.toml").write_text("num-heads = ")
    assert "prior.toml cannot be read as TOML" in refusal(file)


def test_the_identity_of_a_prior_changes_with_its_hints(file):
    one, two = (load_prior(file, **HINTS | {"noise_schedule": s}) for s in ("linear", "cosine"))
    assert one.sha256 != two.sha256
    assert load_prior(file, **HINTS).sha256 == one.sha256


@pytest.mark.parametrize(
    ("hints", "reason"),
    [
        ({"sde": "ve"}, "no use for the hint sde"),
        ({"num_heads": 3}, "3 does not divide"),
        ({"num_heads": "2"}, "hint num_heads is '2'"),
        ({"num_heads": 0}, "out of range"),
        ({"num_heads": True}, "hint num_heads is True"),
        ({"noise_schedule": "sigmoid"}, "hint noise_schedule is 'sigmoid'"),
        ({"image_size": 17}, "a multiple of 2"),
        ({"sigma_min": 100.0}, "not increasing"),
    ],
)
def test_a_hint_that_cannot_be_is_refused(file, hints, reason):
    assert reason in refusal(file, **HINTS | hints)


def test_an_unknown_hint_gets_a_suggestion(file):
    with pytest.raises(UnknownName, match=r"no hint named 'num_head'. Did you mean 'num_heads'"):
        load_prior(file, num_head=2)


def test_hints_narrow_the_noise_levels(file):
    prior = load_prior(file, **HINTS, sigma_min=0.01, sigma_max=20.0)
    assert (prior.sigma_min, prior.sigma_max) == (0.01, 20.0)


def broken(network, change):
    state = dict(network.state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("middle_block.1.qkv.weight"), "1 missing, 0 unexpected, 0 of another shape"),
        (lambda s: s.update({"extra": torch.zeros(2)}), "0 missing, 1 unexpected"),
        (lambda s: s.update({"out.0.bias": torch.zeros(2)}), "1 of another shape, 'out.0.bias' among them"),
        (lambda s: s.pop("out.2.weight"), "but not all ('out.2.weight' is missing)"),
        (lambda s: s["out.2.bias"][:1].fill_(float("inf")), "hold NaN or infinity, 'out.2.bias' first"),
        (lambda s: s.update({"out.2.weight": torch.zeros(5, 32, 3, 3)}), "takes 3 channels and gives 5"),
        (lambda s: s.update({"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}), "may be an upsampler"),
        (lambda s: s.update({"exp_avg": {}}), "1 entries that are no weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_counts(tmp_path, network, change, reason):
    torch.save(broken(network, change), tmp_path / "x.pt")
    assert reason in refusal(tmp_path / "x.pt", **HINTS)


@pytest.mark.slow
def test_deepinv_agrees_on_the_network_of_ffhq_10m():
    from deepinv.models import DiffUNet

    layout = ADMLayout(
        3, 6, 128, (128, 128, 256, 256, 512, 512), 1, (False,) * 4 + (True, False), True, "block"
    )
    theirs = randomised(DiffUNet(pretrained=None), scale=0.02)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith(("sqrt", "reduced", "alphas"))}
    assert read_layout("x", state) == layout
    ours = ADMUNet(dataclasses.replace(layout, head_channels=64)).eval()
    ours.load_state_dict(state)
    x, step = torch.rand(1, 3, 32, 32), torch.tensor([17.0])
    with torch.no_grad():
        expected = theirs.forward_diffusion(x, step)
        assert (ours(x, step) - expected).norm() <= 1e-5 * expected.norm()
