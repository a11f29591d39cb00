"""Fill in the pixels that a photograph has lost, and say how sure one can be of them.

    python examples/inpaint_photo.py [--full]

A part of 64 x 64 pixels, 2 samples and 25 steps take seconds; --full restores the whole picture with 8
samples and 50 steps, which takes minutes.
"""

import argparse

import torch

from invsolve import PC, Gaussian, MomentMatching, Posterior, load_prior, operators
from invsolve.images import SAMPLE, load_image
from invsolve.metrics import chi2, psnr


def main(argv: list[str] | None = None) -> None:
    """Degrade the bundled photo, restore it, and print how good that is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the whole picture, 8 samples, 50 steps")
    full = parser.parse_args(argv).full
    shape, n, steps = ((3, 256, 256), 8, 50) if full else ((3, 64, 64), 2, 25)
    torch.set_num_threads(1)

    photo = torch.from_numpy(load_image(SAMPLE).pixels)
    truth = photo[:, -shape[1] :, -shape[2] :].contiguous()
    operator = operators.inpaint(shape, keep=0.3)
    noise = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = operator.A((truth + noise)[None])  # lost pixels carry no noise either

    posterior = Posterior(load_prior("photo"), Gaussian(y, operator, sigma_y=0.02), guidance=MomentMatching())
    samples = PC(steps=steps)(posterior, n=n, seed=0)

    mean, sd = samples.mean(0), samples.std(0)
    print(f"PSNR of a sample {psnr(samples[0], truth):.1f} dB, of their mean {psnr(mean, truth):.1f} dB")
    print(f"chi2 {chi2(samples, y[0], operator, 0.02):.2f}; a pixel is uncertain by {sd.mean():.3f}")
    calls = {name: count // n for name, count in posterior.calls.items()}
    print(f"calls a sample: {calls['forward']} of the network, {calls['vjp']} of its derivative")


if __name__ == "__main__":
    main()
