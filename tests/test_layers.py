"""Upper layers import lower ones, never the reverse; fast commands import nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import invsolve

ROOT = Path(invsolve.__file__).parent
LAYERS = [  # from the bottom; a package stands for all its modules
    {"errors", "files", "hookspecs", "plain_json"},
    {"sde", "linalg", "rng", "arrays", "images", "heap", "lock", "signals", "device"},
    {"prior", "exact", "likelihood", "forward", "operators", "priors", "classifiers", "gamma"},
    {"twist"},
    {"guidance", "guidances"},
    {"posterior"},
    {"samplers", "training"},
    {"metrics", "diagnostics", "result"},
    {"plugins", "registry", "source", "isolation", "file_part", "options", "option_values", "builtins"},
    {"choice"},
    {"solve", "testing"},
    {"run", "bench", "calibration"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT or p.stem != "__init__")


def imported(path, top_only=False):
    """Modules of ours (first name below invsolve) and of others that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                [node.module] if node.module != "invsolve" else [f"invsolve.{a.name}" for a in node.names]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_from_its_own_layer_or_below(path):
    for name in imported(path):
        first = name.removeprefix("invsolve.").split(".")[0] if name.startswith("invsolve.") else None
        if first in LEVEL and first != of(path):
            assert LEVEL[first] <= LEVEL[of(path)], f"{of(path)} imports {first} from a layer above"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_deepinv_has_one_door(path):
    if path.relative_to(ROOT) == Path("operators/adapter.py"):
        assert "deepinv.physics" in set(imported(path))
        assert not any(name.startswith("deepinv") for name in imported(path, top_only=True))
    elif of(path) != "testing" and path.relative_to(ROOT) != Path("bench/peers_deepinv.py"):
        assert not any(name.startswith("deepinv") for name in imported(path))


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["list"],
        ["--version"],
        ["run", "--operator", "inpaint", "--help"],
        ["calibrate", "--operator", "inpaint", "--help"],
    ],
)
def test_fast_commands_import_neither_torch_nor_deepinv(command):
    code = (
        "import sys; from invsolve.cli import main\n"
        f"try: main({command!r})\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'deepinv'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported():
    for name in invsolve.__all__:
        assert getattr(invsolve, name) is not None
