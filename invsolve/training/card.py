"""The model card of trained weights: what they are, where they come from, the command that makes them again.

    OUT/<name>.md               the card
    OUT/<name>-training.toml    the settings it speaks of, which `invsolve train --config` takes

Everything is read from the checkpoint, the weight file and validation.jsonl, so a card cannot say what the
run does not know: what the images show, and what the weights cannot do, is for their author to add. What was
added stays as long as the weights are the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from invsolve.training.config import TrainingConfig

__all__ = ["settings_text", "write_card"]

State = Mapping[str, object]


def write_card(file: Path, metadata: Mapping[str, str], state: State, asked: TrainingConfig) -> None:
    """Write the card and the settings beside a weight file; metadata is that of the file."""
    settings, card = file.with_name(f"{file.stem}-training.toml"), file.with_suffix(".md")
    settings.write_text(settings_text(asked))
    if card.exists() and metadata["sha256"] in card.read_text():
        return
    sections = (
        _facts(file, metadata, state, asked),
        _again(settings, state, asked),
        _figures(file.parent),
    )
    card.write_text("\n\n".join(filter(None, sections)) + "\n")


def settings_text(config: TrainingConfig) -> str:
    """Settings as TOML, which read_config reads back as the same."""
    table = asdict(config)
    inner = table.pop("architecture")
    lines = [f"{key} = {_toml(value)}" for key, value in table.items()]
    return "\n".join([*lines, "", "[architecture]", *(f"{k} = {_toml(v)}" for k, v in inner.items())]) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)  # strings and numbers are written alike in both


def _facts(file: Path, metadata: Mapping[str, str], state: State, asked: TrainingConfig) -> str:
    side, low, high = metadata.get("side", "any"), *(float(metadata[f"sigma_{k}"]) for k in ("min", "max"))
    learns = asked.objective if asked.kind == "prior" else "cross-entropy"
    channels = asked.architecture.in_channels
    rows = {
        "images": f"{channels} x {side} x {side} in [0, 1]; inside, the network works on [-1, 1]",
        "noise levels": f"trained for sigma {low:g} to {high:g} in [0, 1] units",
        "training": f"{state['images']} images seen in {state['step']} steps, objective {learns}",
        "settings": f"`{file.stem}-training.toml`, hash {metadata['config_hash']}",
        "weights": f"fp16, {file.stat().st_size / 1e6:.2f} MB, sha256 {metadata['sha256']}",
        "licence": asked.licence,
    }
    lines = [f"| {name} | {text} |" for name, text in rows.items()]
    return "\n".join(
        [f"# {asked.name}: a {asked.kind} trained by invsolve", "", "| | |", "|---|---|", *lines]
    )


def _again(settings: Path, state: State, asked: TrainingConfig) -> str:
    data, processes, start = (state.get(key) for key in ("data", "processes", "start"))
    assert isinstance(data, list), "a checkpoint lists the names of its folders"
    words = [f"--config {settings.name}", *(f"--data {name}" for name in data), "--out run"]
    words += [f"--processes {processes}"] if processes != 1 else []
    words += [f"--start {start}"] if start else []
    words += [f"--images {images}"] if (images := _budget(state, asked)) != asked.images else []
    first = f"\n\nA card beside `{start}` says how those weights were made." if asked.after and start else ""
    return f"## Regenerate\n\n    invsolve train {' '.join(words)}{first}"


def _budget(state: State, asked: TrainingConfig) -> int:
    """The budget in images that ends a run where this one ended."""
    budget, seen = state.get("budget"), state["images"]
    assert isinstance(seen, int), "a checkpoint counts images"
    planned = budget["images"] if isinstance(budget, dict) else asked.images
    return min(seen, int(planned))  # below planned where seconds ended it, or nothing did yet


def _figures(folder: Path) -> str:
    """The last row of validation.jsonl as a table, or nothing."""
    file = folder / "validation.jsonl"
    if not file.exists():
        return ""
    row = json.loads(file.read_text().splitlines()[-1])
    name = "psnr" if "psnr" in row else "accuracy"
    said = "Mean denoising PSNR, dB" if name == "psnr" else "Share of the held-out images recognised"
    head = f"## On images not trained on\n\n{said}; sigma in [-1, 1] units.\n\n"
    columns = ["sigma", *row[name]], ["---"] * (1 + len(row[name])), [name, *map(str, row[name].values())]
    return head + "\n".join(f"| {' | '.join(cells)} |" for cells in columns)
