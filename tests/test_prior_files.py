"""Prior files: what is written is read back, what is foreign or damaged is refused, units are right."""

import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from invsolve.errors import InputError, UnknownName
from invsolve.priors.catalogue import load_prior, shipped
from invsolve.priors.denoiser import DenoiserPrior
from invsolve.priors.formats import read_metadata, save_safetensors_prior
from invsolve.priors.network import Architecture, build

TINY = Architecture(3, 4, (8, 8), 1)


def written(path, **changes):
    """Write a small prior with random weights that are exact in half precision."""
    network = build(TINY).requires_grad_(False)
    rng = torch.Generator().manual_seed(1)
    for p in network.parameters():
        p.copy_((0.3 * torch.randn(p.shape, generator=rng)).half())
    about = {
        "name": "tiny",
        "licence": "CC0",
        "sigma_min": 0.001,
        "sigma_max": 40.0,
        "about": {"images": "7"},
    }
    save_safetensors_prior(path, network, **(about | changes))
    return network


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    written(path)
    return path


def rewritten(file, change, weights=None):
    """Write the file again with other metadata, and perhaps other weights."""
    metadata = read_metadata(file) | change
    save_file(load_file(file) if weights is None else weights, file, metadata)


def refusal(path):
    """Message of the refusal: one line, an InputError."""
    with pytest.raises(InputError) as caught:
        load_prior(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


# round trip


def test_a_prior_comes_back_as_it_was_saved(file):
    prior, x = load_prior(file), torch.rand(2, 3, 19, 33)
    sigma = torch.tensor([0.1, 2.0], dtype=torch.float64)
    prior.fast = False
    expected = (written(file)(2 * x - 1, 2 * sigma) + 1) / 2
    torch.testing.assert_close(prior.denoise(x, sigma), expected)
    assert (prior.name, prior.shape, prior.sigma_min, prior.sigma_max) == (
        "tiny",
        (3, None, None),
        0.001,
        40.0,
    )
    assert (prior.metadata["licence"], prior.metadata["images"]) == ("CC0", "7")
    assert prior.sha256 == prior.metadata["sha256"]


def test_loading_leaves_the_global_generator_alone(file):
    before = torch.random.get_rng_state()
    load_prior(file)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_path_is_taken_as_text_too(file):
    assert load_prior(str(file)).name == "tiny"


def test_a_file_of_ours_takes_no_hints_and_none_that_are_for_others(file):
    file.with_name("prior.toml").write_text("num_heads = 4")
    assert load_prior(file).name == "tiny"
    with pytest.raises(InputError, match="a prior file of invsolve, which has no use for the hint sde"):
        load_prior(file, sde="ve")
    with pytest.raises(InputError, match="a shipped prior, which has no use for the hint sde"):
        load_prior("photo", sde="ve")


def test_a_file_states_its_halo_and_one_that_does_not_has_it_from_its_architecture(file):
    metadata, weights = read_metadata(file), load_file(file)
    assert (metadata["halo"], load_prior(file).halo) == ("29", 29)
    rewritten(file, {"halo": "40"})
    assert load_prior(file).halo == 40
    save_file(weights, file, {key: value for key, value in metadata.items() if key != "halo"})
    assert load_prior(file).halo == 29


# refusals


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "x.safetensors") == f"no weight file at {tmp_path / 'x.safetensors'}."


def test_a_folder_is_no_file(tmp_path):
    assert "cannot be read" in refusal(tmp_path)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UnknownName, match=r"no prior named 'phto'. Did you mean 'photo'\?"):
        load_prior("phto")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello world, this is text", "is not a safetensors file"),
        (b"abc", "is not a safetensors file"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\n <html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        (b"\xff" * 8 + b"{" + bytes(99), "is not a safetensors file"),
        ((2).to_bytes(8, "little") + b"{]", "broken safetensors header"),
        ((5).to_bytes(8, "little") + b'{"a":', "broken safetensors header"),
        ((9).to_bytes(8, "little") + b'{"a":{} }', "broken safetensors header"),
        ((50).to_bytes(8, "little") + b'{"a":', "cut short"),
    ],
)
def test_a_foreign_file_is_refused_by_its_first_bytes(tmp_path, content, reason):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert reason in refusal(tmp_path / "x.safetensors")


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_refused_and_never_run(tmp_path):
    trap = Trap(str(tmp_path / "ran"))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(trap))
    with zipfile.ZipFile(tmp_path / "zipped.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(trap))
    assert "nothing in it was run" in refusal(tmp_path / "plain.pt")
    assert "cannot be read as weights" in refusal(tmp_path / "zipped.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("cut", [1, 1000, -4])
def test_a_truncated_or_padded_file_is_refused(file, cut):
    content = file.read_bytes()
    file.write_bytes(content[:-cut] if cut > 0 else content + bytes(-cut))
    assert "cut short or padded" in refusal(file)


def test_a_flipped_bit_is_noticed(file):
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    assert "sha256" in refusal(file)


def test_other_safetensors_are_not_taken_for_priors(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors")
    assert "of format None" in refusal(tmp_path / "x.safetensors")


def test_weights_that_do_not_fit_are_counted(file):
    rewritten(file, {"architecture": json.dumps({"stem": 4, "widths": [8, 8], "blocks": 2})})
    assert "missing, 0 unknown, 0 of another shape" in refusal(file)
    rewritten(file, {"architecture": json.dumps({"stem": 4, "widths": [8, 12], "blocks": 1})})
    assert "0 missing, 0 unknown" in refusal(file)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(file, bad):
    weights = load_file(file)
    weights["head.bias"][0] = bad
    bare = file.with_name("bare.safetensors")
    save_file(weights, bare)
    rewritten(file, {"sha256": payload_hash(bare)}, weights)
    assert refusal(file).startswith(f"1 of {len(weights)} weights in {file} hold NaN or infinity")


def payload_hash(path):
    from hashlib import sha256

    content = path.read_bytes()
    return sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "[]"},
        {"architecture": "{"},
        {"architecture": '{"stem": 0}'},
        {"architecture": '{"depth": 3}'},
        {"data_range": "[1]"},
        {"data_range": "[1, -1]"},
        {"sigma_min": "x"},
        {"sigma_min": "nan"},
        {"sigma_max": "0"},
        {"halo": "28"},
        {"halo": "-30"},
        {"halo": "many"},
    ],
)
def test_unusable_metadata_is_refused(file, change):
    rewritten(file, change)
    assert str(file) in refusal(file)


# units


class GaussianNetwork(nn.Module):
    """Exact denoiser of independent pixels N(mean, variance) in the network's units."""

    def __init__(self, mean, variance):
        super().__init__()
        self.mean, self.variance = mean, variance

    def forward(self, x, sigma):
        share = (self.variance / (self.variance + sigma**2)).to(x).reshape(-1, 1, 1, 1)
        return self.mean + share * (x - self.mean)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 1.5)])
def test_ranges_meet_in_one_place(low, high):
    span = high - low
    network = GaussianNetwork(low + 0.3 * span, (0.2 * span) ** 2)
    prior = DenoiserPrior(network, data_range=(low, high))
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    sigma = torch.tensor([0.01, 0.2, 30.0], dtype=torch.float64)
    expected = GaussianNetwork(0.3, 0.04)(x, sigma)
    torch.testing.assert_close(prior.denoise(x, sigma), expected, rtol=1e-10, atol=1e-10)  # float64


class GreyGaussianNetwork(GaussianNetwork):
    """Exact denoiser of pictures whose three channels are one N(mean, variance) variable."""

    def forward(self, x, sigma):
        return super().forward(x.mean(1, keepdim=True), sigma / 3**0.5).expand_as(x)


def test_grey_images_through_a_colour_prior_are_exact_where_the_colour_prior_is():
    grey = DenoiserPrior(GreyGaussianNetwork(-0.4, 0.16)).grey()
    x = torch.rand(2, 1, 8, 6, dtype=torch.float64)
    sigma = torch.tensor([0.05, 0.4], dtype=torch.float64)
    torch.testing.assert_close(
        grey.denoise(x, sigma), GaussianNetwork(0.3, 0.04)(x, sigma), rtol=1e-9, atol=1e-9
    )
    assert grey.shape == (1, None, None)
    assert grey.sigma_max == pytest.approx(40 / 3**0.5)


def test_the_noise_a_colour_prior_sees_in_a_grey_image_is_white_over_channels():
    seen = []
    network = GaussianNetwork(0.0, 1.0)
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    DenoiserPrior(network).grey().denoise(0.5 + 0.1 * noise, torch.tensor([0.1], dtype=torch.float64))
    x, level = seen[0]
    covariance = torch.cov(x[0].flatten(1)) / level**2
    assert (covariance - torch.eye(3)).abs().max() < 4 * (2 / 4096) ** 0.5  # 4 sd of a sample covariance


# behaviour of the shipped prior


@pytest.fixture(scope="module")
def photo():
    return load_prior("photo")


def test_photo_is_shipped_small_and_says_what_it_is(photo):
    assert shipped()["photo"].stat().st_size <= 8_000_000
    assert {"licence", "images", "config_hash"} <= photo.metadata.keys()
    assert photo.sigma_min <= 0.002
    assert photo.sigma_max >= 30


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 51), (7, 80)])
def test_photo_denoises_any_size(photo, height, width):
    rng = torch.Generator().manual_seed(0)
    rows = torch.linspace(0.2, 0.8, height)[:, None].expand(1, 3, height, width)
    noisy = rows + 0.1 * torch.randn(rows.shape, generator=rng)
    answer = photo.denoise(noisy, torch.tensor([0.1], dtype=torch.float64))
    assert answer.dtype == torch.float32
    assert (answer - rows).std() < 0.5 * 0.1  # a smooth picture: most noise goes


def test_a_row_of_photo_does_not_depend_on_the_others(photo):
    x = torch.rand(4, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.002, 0.05, 0.5, 20.0], dtype=torch.float64)
    alone = torch.cat([photo.denoise(x[i : i + 1], sigma[i : i + 1]) for i in range(4)])
    assert (photo.denoise(x, sigma) - alone).abs().max() < 2e-2  # bfloat16 keeps 8 bits
    photo.fast = False
    alone = torch.cat([photo.denoise(x[i : i + 1], sigma[i : i + 1]) for i in range(4)])
    assert (photo.denoise(x, sigma) - alone).abs().max() < 1e-4  # float32 sums in another order
    photo.fast = True


def test_derivatives_go_to_the_image_alone(photo):
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    photo.denoise(x, torch.tensor([0.1], dtype=torch.float64)).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in photo.parameters())
