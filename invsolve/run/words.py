"""What a run prints on stdout when it is over: a few lines an image, or one JSON object."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invsolve.plain_json import json_text
from invsolve.run.drive import Outcome

__all__ = ["as_json", "as_text"]

Report = Mapping[str, Any]  # Any: JSON
_PICTURES = ("measurement.png", "mean.png", "std.png", "sheet.png", "samples")
_FILES = ("posterior.h5", "metrics.json", "run.toml", *_PICTURES)
_TRUST = ("chi2", "coverage90", "dispersion", "recognised", "log_likelihood", "log_evidence")


def as_text(outcome: Outcome) -> str:
    """Say how it went, image by image."""
    lines = [_image(report) for report in outcome.images]
    if outcome.failures:
        place = outcome.out / "failures.csv"
        lines.append(f"{len(outcome.failures)} failed, see {place}; the same command tries again")
    return "\n".join(lines)


def _image(report: Report) -> str:
    """Say how an image went: distances to the truth, what to trust, what it cost and where the files are."""
    m = report["metrics"]
    lines = [Path(report["input"]).name]
    if "psnr" in m:
        names = {"measurement": "measurement", "sample": "one sample", "mean": "posterior mean"}
        lines.append("  PSNR       " + "   ".join(f"{names[k]} {_decibel(v)}" for k, v in m["psnr"].items()))
    trust = [f"{k.replace('_', ' ')} {m[k]:.3g}" for k in _TRUST if m.get(k) is not None]
    trust += [f"effective particles {m['ess']['least']:.0f} at least"] if "ess" in m else []
    lines.append("  posterior  " + "   ".join(trust))
    if "chosen" in m:
        lines.append(f"  auto       {m['chosen']}")
    calls = f"{m['nfe']['forward']:.0f} forward + {m['nfe']['vjp']:.0f} vjp network calls a sample"
    lines.append(f"  cost       {calls}   {m['samples']} samples   {m['seconds']:.1f} s")
    lines += [f"  note       {note}" for note in report["notes"]]
    return "\n".join([*lines, f"  files      {report['out']}"])


def _decibel(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"


def as_json(outcome: Outcome) -> str:
    """One object: the metrics and paths of the image, or a list of such for several."""
    images, failures = [_with_files(report) for report in outcome.images], outcome.failures
    if outcome.several or not images:
        return json_text({"out": str(outcome.out), "images": images, "failures": failures})
    return json_text(images[0] | ({"failures": failures} if failures else {}))


def _with_files(report: Report) -> dict[str, Any]:
    out = Path(report["out"])
    files = {Path(name).stem: str(out / name) for name in _FILES if (out / name).exists()}
    return {
        **report["metrics"],
        "input": report["input"],
        "out": str(out),
        "files": files,
        "notes": report["notes"],
    }
