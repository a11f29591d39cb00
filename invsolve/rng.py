"""Noise as a stateless function of (seed, content, sample index, draw).

Sample k owns the same numbers whatever the batch, the chunk, the retry or the machine's load, and no
generator has a state that could be forgotten or shared. Samples are drawn in blocks of fixed size: block b
holds samples b*size .. (b+1)*size - 1 and comes from one generator seeded by the hash of (seed, content, b,
draw). Images have a block each; vectors share one, so that four thousand points of a plane cost one call and
not four thousand. The size of a block follows from the event shape alone. The global generators are never
touched. Antithetic noise gives samples 2k and 2k + 1 the numbers z and -z of pair k.
"""

import hashlib
import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from operator import index

import torch
from torch import Tensor

__all__ = ["Noise", "seed_of"]

_BLOCK = 2**14  # numbers a block: about 0.1 ms to draw


def seed_of(*key: Hashable) -> int:
    """Hash the key to 63 bits."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Noise:
    """Standard normal noise for samples first .. first + n - 1 of one problem.

    content tells problems of one seed apart (a hash of the measurement); shape is that of one sample.
    """

    seed: int
    content: str
    n: int
    shape: tuple[int, ...]
    first: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"
    prefix: tuple[Hashable, ...] = ()
    antithetic: bool = False

    def child(self, *key: Hashable) -> "Noise":
        """Noise of its own for one step: every later draw's key starts with this one."""
        return replace(self, prefix=self.prefix + key)

    def __call__(self, *key: Hashable) -> Tensor:
        """Draw (n, *shape) numbers for this key; the same key gives the same numbers."""
        if not self.antithetic:
            return self._draw(self.first, self.n, self.prefix + key)
        k = torch.arange(self.first, self.first + self.n, device=self.device)
        pair = k // 2 - self.first // 2
        drawn = self._draw(self.first // 2, int(pair[-1]) + 1, self.prefix + key)[pair]
        return drawn * (1 - 2 * (k % 2)).to(drawn).reshape(-1, *[1] * len(self.shape))

    def _draw(self, first: int, n: int, key: tuple[Hashable, ...]) -> Tensor:
        size = max(1, _BLOCK // max(1, math.prod(self.shape)))
        blocks = range(first // size, (first + n - 1) // size + 1)
        drawn = torch.cat([self._block(b, size, key) for b in blocks])
        start = first - blocks.start * size
        return drawn[start : start + n]

    def _block(self, block: int, size: int, key: tuple[Hashable, ...]) -> Tensor:
        generator = torch.Generator(self.device)
        generator.manual_seed(seed_of(index(self.seed), self.content, block, key))
        return torch.randn(size, *self.shape, generator=generator, dtype=self.dtype, device=self.device)
