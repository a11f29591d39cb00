"""Teach a classifier its slopes: guidance follows grad log p(c | x_t), cross-entropy looks at values alone.

Two classifiers of equal cross-entropy may differ in their gradients as much as they like, and an ordinary one
is rough where it guides. What the gradient should be is known: with the prior's mean D = E[x_0 | x_t]

    D + sigma^2 grad log p(c | x_t) = E[x_0 | x_t, c]

so of all fields g the one that makes E |D + sigma^2 g - x_0|^2 least, over x_0 of class c and its noise, is
grad log p(c | x_t): denoising score matching for the likelihood (Chao et al. 2022, arXiv:2203.14206,
section 4). The loss here leaves out |D - x_0|^2, which the classifier cannot change, and counts in nats:

    L = E w (|D + sigma^2 g - x_0|^2 - |D - x_0|^2) / sigma^2,   w = sigma^2 / (sigma^2 + 0.3^2)

For w = 1 and the true slope it is -dH/d ln sigma, H = E[-log p(c | x_t)] the entropy of the class: what is
learned of the class as the noise falls by a factor e (the I-MMSE relation: Guo, Shamai and Verdu 2005,
arXiv:cs/0412108). w takes out low noise, where the class is clear and the square is all noise.
"""

import torch
from torch import Tensor

from invsolve.linalg import expand
from invsolve.prior import Prior

__all__ = ["denoised", "slope_loss"]

CLEAR = 0.3  # noise level, in [-1, 1] units, below which a class is clear


@torch.no_grad()
def denoised(prior: Prior, x: Tensor, sigma: Tensor) -> Tensor:
    """E[x_0 | x_t] of images (B, C, H, W) on [-1, 1]; a prior lives on [0, 1]."""
    return 2 * prior.denoise((x.detach() + 1) / 2, sigma.to(x.device) / 2) - 1


def slope_loss(log_p: Tensor, x: Tensor, sigma: Tensor, x0: Tensor, mean: Tensor) -> Tensor:
    """Misfit of the slope of log_p (B,) in x, nats an e-fold of noise; below 0 where guiding helps.

    x = x0 + sigma n must carry the graph of log_p; mean is the prior's E[x_0 | x_t].
    """
    slope = torch.autograd.grad(log_p.sum(), x, create_graph=True)[0]
    guided, alone = (m - x0 for m in (mean + expand(sigma**2, x) * slope, mean))
    gained = (guided.square() - alone.square()).flatten(1).sum(1)
    loss: Tensor = (gained / (sigma**2 + CLEAR**2).to(gained)).mean()
    return loss
