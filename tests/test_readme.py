"""README's code runs as it stands, and what it names exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_library_example_runs_and_restores():
    code = blocks("python")[0]
    assert len(code.strip().splitlines()) <= 13  # twelve lines and a blank one
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    psnr = float(re.search(r"tensor\(([\d.]+)", done.stdout).group(1))
    assert psnr > 20  # zero-filling reaches 7 dB on this crop


def test_the_operator_example_passes_the_conformance_kit(tmp_path):
    from invsolve import plugins, testing

    path = tmp_path / "mine.py"
    path.write_text(blocks("python")[1])
    testing.check_operator(plugins.load_file_part(f"{path}:stripes"))


@pytest.mark.parametrize("flag", sorted(set(re.findall(r" (--[a-z-]+)", "\n".join(blocks("bash"))))))
def test_every_flag_in_the_readme_is_known(flag):
    from invsolve import plugins

    registry = plugins.load()
    of_parts = {f"--{o.name}" for row in registry.rows() for o in registry.options(row.kind, row.name)}
    own = subprocess.run(
        [sys.executable, "-m", "invsolve", "run", "--help"], capture_output=True, text=True
    ).stdout
    of_the_plugin = f" {flag.removeprefix('--')}: Annotated[" in blocks("python")[1]
    assert flag in of_parts or flag in own or of_the_plugin


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_every_link_in_the_readme_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_readme_cites_what_setup_says():
    assert 'version = "0.1.0"' in (ROOT / "pyproject.toml").read_text()
    assert "version 0.1.0" in README
