"""Denoiser objects of deepinv: called as they are, and refused where they clip."""

import pytest
import torch
from checkpoint_files import assert_denoises_as
from deepinv.models import DRUNet, NCSNpp, ScoreModelWrapper
from torch import nn

from invsolve.errors import InputError, Refused
from invsolve.priors.catalogue import load_prior


@pytest.fixture(scope="module")
def drunet():
    torch.manual_seed(0)
    return DRUNet(nc=(8, 8, 8, 8), nb=1, pretrained=None).requires_grad_(False)


def test_a_denoiser_of_deepinv_is_called_as_it_is(drunet):
    prior = load_prior(drunet, sigma_min=0.01, sigma_max=10.0)
    assert_denoises_as(prior, lambda x, s: drunet(x, torch.full((len(x),), s)))
    assert (prior.shape, prior.sigma_min, prior.sigma_max) == ((3, None, None), 0.01, 10.0)
    assert prior.sha256


def test_the_noise_levels_of_an_object_must_be_told(drunet):
    with pytest.raises(
        InputError, match="DRUNet is a denoiser object, which does not tell sigma_min, sigma_max"
    ):
        load_prior(drunet)
    with pytest.raises(InputError, match="no use for the hint num_heads"):
        load_prior(drunet, sigma_min=0.01, sigma_max=1.0, num_heads=2)


class Clipping(nn.Module):
    clip_output = True


def test_a_denoiser_that_clips_is_refused():
    assert hasattr(ScoreModelWrapper, "forward")  # the class of deepinv that has the switch
    with pytest.raises(Refused, match="clip_output=False"):
        load_prior(Clipping(), sigma_min=0.01, sigma_max=1.0)


def test_channels_that_no_picture_has_are_refused():
    odd = nn.Identity()
    odd.in_channels = 7
    with pytest.raises(InputError, match="takes 7 channels"):
        load_prior(odd, sigma_min=0.01, sigma_max=1.0)


def test_a_grey_denoiser_that_does_not_say_so_is_of_one_channel():
    grey = DRUNet(in_channels=1, out_channels=1, nc=(8, 8, 8, 8), nb=1, pretrained=None)
    prior = load_prior(grey, sigma_min=0.01, sigma_max=1.0)
    assert prior.shape == (1, None, None)
    assert prior.denoise(torch.rand(2, 1, 16, 16), torch.tensor([0.1, 0.2])).shape == (2, 1, 16, 16)


def test_an_object_that_gives_no_image_is_refused_in_one_line():
    with pytest.raises(InputError, match="Linear gives no image of the same shape") as caught:
        load_prior(nn.Linear(3, 3), sigma_min=0.01, sigma_max=1.0)
    assert "\n" not in str(caught.value)


def test_a_network_that_takes_the_logarithm_of_the_level_leaves_clean_images():
    torch.manual_seed(0)
    sizes = {"img_resolution": 16, "model_channels": 128, "channel_mult": [1], "num_blocks": 1}
    prior, x = (
        load_prior(NCSNpp(**sizes, pretrained=None), sigma_min=0.01, sigma_max=1.0),
        torch.rand(2, 3, 16, 16),
    )
    torch.testing.assert_close(prior.denoise(x, torch.zeros(2, dtype=torch.float64)), x)
