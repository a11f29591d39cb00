"""A tiny world for `invsolve run`: photos of 16 x 24 pixels and a prior of independent pixels N(0.5, 0.05).

Its posterior is known: each pixel is Gaussian.
"""

import contextlib
import io
import os
import signal

import numpy as np
import pytest
from PIL import Image

from invsolve import cli
from invsolve.run import events, executor

VARIANCE = 0.05
PRIOR = '''
import time
from invsolve.linalg import expand
from invsolve.prior import Prior

class White(Prior):
    """Independent pixels."""
    pause, limit, gone = 0.0, 0.0, 0.0
    def denoise(self, x, sigma):
        time.sleep(self.pause)
        gain = 0.05 / (0.05 + expand(sigma**2, x))
        bad = (sigma < self.limit).any()
        return 0.5 + gain * (x - 0.5) + (float("nan") if bad else 0.0)

def _made(channels=3, **attributes):
    prior = White()
    prior.shape = (channels, None, None)
    prior.centre.fill_(0.5)
    vars(prior).update(attributes)
    return prior

def white(): return _made()
def grey(): return _made(1)
def slow(): return _made(pause=0.01)
def diverging(): return _made(limit=1.0)
class _Moody(White):
    def denoise(self, x, sigma):
        from pathlib import Path
        return super().denoise(x, sigma) + (float("nan") if Path("moody").exists() else 0.0)
def moody():
    prior = _Moody()
    prior.shape = (3, None, None)
    return prior
def limited(): return _made(sigma_max=40.0)
class _Leaving(White):
    def denoise(self, x, sigma):
        raise SystemExit(5)
def leaving(): return _Leaving()
def needing(shape): return _made()
def empty(): return 3
def hungry():
    raise MemoryError
'''


OPERATORS = '''
from typing import Annotated

class _Rows:
    def __init__(self, shape, every):
        self.shape, self.every = shape, every
    def A(self, x):
        x = x.clone()
        x[..., :: self.every, :] = 0
        return x
    A_adjoint = A_dagger = A

def rows(shape, every: Annotated[int, "rows from one dead row to the next"] = 4):
    """Lose rows."""
    return _Rows(shape, every)

class _Wrong(_Rows):
    def A_adjoint(self, y):
        return 2 * self.A(y)

def wrong(shape):
    return _Wrong(shape, 4)

def broken(shape):
    raise TypeError("no such thing")

def forgetful(shape):
    _Rows(shape, 4)

class _Forward:
    def __init__(self, shape, A):
        self.shape, self.A = shape, A

def inplace(shape): return _Forward(shape, lambda x: x.mul_(0.5))
def first(shape): return _Forward(shape, lambda x: x[0])
def moving(shape): return _Forward(shape, lambda x: x + x.clone().normal_())
def complex(shape): return _Forward(shape, lambda x: x * 1j)
def nothing(shape): return _Forward(shape, lambda x: 0 * x)
def pairs(shape): return _Forward(shape, lambda x: x[:, :2])
def brightness(shape): return _Forward(shape, lambda x: x.mean(1, keepdim=True))
def chatty(shape): return _Forward(shape, lambda x: print("chat") or x.mean(1, keepdim=True))
'''


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Working directory with photo.png, other.png, prior.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prior.py").write_text(PRIOR)
    (tmp_path / "operators.py").write_text(OPERATORS)
    for seed, name in enumerate(("photo", "other")):
        save(tmp_path / f"{name}.png", picture(seed))
    return tmp_path


def picture(seed=0, channels=3, shape=(16, 24)):
    """Pixels of an image drawn from the prior, in whole levels of 8 bits: (H, W, C)."""
    x = 0.5 + VARIANCE**0.5 * np.random.default_rng(seed).standard_normal((*shape, channels))
    return np.rint(x.clip(0, 1) * 255).astype(np.uint8)


def save(path, pixels):
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def invsolve(*words):
    """Run the command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in words])
    return end.value.code, out.getvalue(), err.getvalue()


def run(*words, prior="white", steps=10, samples=2):
    """invsolve run with the tiny prior and few steps."""
    return invsolve(
        "run",
        *words,
        "--prior",
        f"prior.py:{prior}",
        "--steps",
        steps,
        "--samples",
        samples,
        "--device",
        "cpu",
    )


def simulate(*words, **settings):
    """run on photo.png as the truth, inpainting by default."""
    operator = () if "--operator" in words else ("--operator", "inpaint")
    return run("photo.png", "--simulate", *operator, *words, **settings)


def serve_without_torch(connection):
    """A worker process whose units are instructions: "die", "fail", or anything else."""
    executor.obey(connection, follow)


def follow(unit):
    if unit.id == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if unit.id.startswith("die once"):
        mark = unit.directory / unit.id
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    yield events.Tick(unit, 0.5, 1.0)
    yield events.Failed(unit, "no", 3) if unit.id == "fail" else events.Done(unit)
