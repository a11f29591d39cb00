"""What the rows of a benchmark come to: means with 95 % intervals, a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from invsolve.bench.figures import interval, over, table
from invsolve.bench.posterior import FLOOR, IMAGE_FIGURES, MIXTURE_FIGURES
from invsolve.bench.record import Row

__all__ = ["Cell", "cells", "plot", "tables"]

Cell = dict[str, object]
Rows = Mapping[tuple[str, str], Sequence[Row]]
_COST = ("forward", "vjp", "seconds")
_TROUBLE = ("diverged", "failed", "refused")


def cells(rows: Rows) -> list[Cell]:
    """One cell a problem and method: each figure's mean, interval and floor; calls; how many units failed."""
    found = []
    for (problem, name), each in rows.items():
        if name == FLOOR:
            continue
        good = [row for row in each if "forward" in row]
        cell: Cell = {"problem": problem, "method": name, "seeds": len(each)}
        cell |= {kind: sum(kind in row for row in each) for kind in _TROUBLE}
        cell |= {"why": next((row[kind] for row in each for kind in _TROUBLE if kind in row), "")}
        exact = {row["seed"]: row for row in rows[problem, FLOOR]}
        for figure in _figures(problem):
            floors = [exact[row["seed"]][figure] for row in good]
            cell[figure] = _against([row[figure] for row in good], floors)
        cell |= {name: interval([row[name] for row in good])[0] for name in _COST}
        found.append(cell)
    return found


def _against(values: Sequence[float], floors: Sequence[float]) -> dict[str, float]:
    """A figure and its floor over the same seeds: those without samples have no part in either."""
    (mean, half), (ratio, ratio_half) = interval(values), over(values, floors)
    floor, _ = interval(floors)
    return {"mean": mean, "half": half, "floor": floor, "ratio": ratio, "ratio_half": ratio_half}


def _figures(problem: str) -> tuple[str, ...]:
    return MIXTURE_FIGURES if problem.startswith("mixture") else IMAGE_FIGURES


def tables(found: Sequence[Cell]) -> str:
    """Markdown tables, one for the mixtures and one for the images; cells are mean ± half (floor).

    Below them, why a method gave no samples of a problem, or not of each seed's.
    """
    parts = []
    for figures in (MIXTURE_FIGURES, IMAGE_FIGURES):
        chosen = [cell for cell in found if figures[0] in cell]
        if chosen:
            words = [f"{figure} ± 95 % (floor)" for figure in figures]
            ratio = ["sw1 / floor ± 95 %"] if figures == MIXTURE_FIGURES else []
            head = ["problem", "method", *words, *ratio, "forward", "vjp", "seconds", "seeds", "no samples"]
            parts.append(table(head, [_line(cell, figures) for cell in chosen]))
    why = [f"- {cell['method']} on {cell['problem']}: {cell['why']}" for cell in found if cell["why"]]
    return "\n\n".join([*parts, *(["\n".join(why)] if why else [])])


def _line(cell: Cell, figures: Sequence[str]) -> list[str]:
    name = [str(cell["problem"]), str(cell["method"])]
    lost = [f"{cell[kind]} {kind}" for kind in _TROUBLE if cell[kind]]
    trouble = ", ".join(lost) or "-"
    if sum(int(str(cell[kind])) for kind in _TROUBLE) == cell["seeds"]:
        many = len(figures) + (figures == MIXTURE_FIGURES) + len(_COST)
        return [*name, *["-"] * many, str(cell["seeds"]), trouble]
    values = [_numbers(cell, figure) for figure in figures]
    shown = [f"{v['mean']:.3f} ± {v['half']:.3f} ({v['floor']:.3f})" for v in values]
    first = f"{values[0]['ratio']:.2f} ± {values[0]['ratio_half']:.2f}"
    ratio = [first] if figures == MIXTURE_FIGURES else []
    cost = [f"{cell[key]:.1f}" if key == "seconds" else f"{cell[key]:.0f}" for key in _COST]
    return [*name, *shown, *ratio, *cost, str(cell["seeds"]), trouble]


def _numbers(cell: Cell, figure: str) -> dict[str, float]:
    value = cell[figure]
    assert isinstance(value, dict)
    return value


def plot(found: Sequence[Cell], path: Path) -> None:
    """Draw each method's SW-1 over its floor, a point a mixture; or the error of the mean over its floor.

    A problem of which a method gave no samples has no point: its mean is NaN.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    problems = list(dict.fromkeys(str(cell["problem"]) for cell in found))
    for name in dict.fromkeys(str(cell["method"]) for cell in found):
        own = [cell for cell in found if cell["method"] == name]
        values = [_numbers(cell, _figures(str(cell["problem"]))[0]) for cell in own]
        where = [problems.index(str(cell["problem"])) for cell in own]
        axes.plot(where, [value["ratio"] for value in values], "o-", label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(yscale="log", ylabel="distance / floor", title="1 is what exact samples reach")
    axes.set_xticks(range(len(problems)), problems, rotation=30, ha="right")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
