"""A score network of 15 weights that can be right, and the mixture it is taught."""

import torch
from torch import nn

from invsolve.exact import MixturePrior

MEANS = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
MIXTURE = MixturePrior(MEANS, torch.tensor([0.4, 0.3, 0.2, 0.1]), 0.5**2)


class SmallScore(nn.Module):
    """Score of four Gaussians whose means, weights and variances are learned, with noise of a level."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.means = nn.Parameter(0.5 * MEANS + 0.2 * torch.randn(4, 2, generator=rng))
        self.logits = nn.Parameter(torch.zeros(4))
        self.log_variances = nn.Parameter(torch.zeros(4))

    def forward(self, x, level):
        variance = self.log_variances.exp() + level.to(x)[:, None] ** 2  # (B, 4)
        off = self.means - x[:, None]
        joint = self.logits - off.square().sum(2) / (2 * variance) - variance.log()
        return ((joint.softmax(1) / variance)[..., None] * off).sum(1)


def fit(network, loss, steps=250, rate=0.05, batch=1024):
    """Minimise loss(x0, rng) over batches of the mixture, the rate falling to zero."""
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    data = MIXTURE.sample(batch * 40, 5)
    for _ in range(steps):
        optimizer.zero_grad()
        x0 = data[torch.randint(len(data), (batch,), generator=rng)]
        loss(x0, rng).backward()
        optimizer.step()
        fall.step()


def relative_error(score, level, n=4000):
    """E |s - grad log p|^2 / E |grad log p|^2 over the mixture with noise of that level."""
    rng = torch.Generator().manual_seed(2)
    x = MIXTURE.sample(n, 6) + level * torch.randn(n, 2, generator=rng)
    levels = torch.full((n,), level, dtype=torch.float64)
    true = MIXTURE.score(x, levels)
    with torch.no_grad():
        off = score(x, levels) - true
    return float(off.square().mean() / true.square().mean())
