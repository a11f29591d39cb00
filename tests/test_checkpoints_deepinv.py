"""Denoiser objects of deepinv: called as they are, and refused where they clip."""

import pytest
import torch
from checkpoint_files import assert_denoises_as
from deepinv.models import DRUNet, ScoreModelWrapper
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
