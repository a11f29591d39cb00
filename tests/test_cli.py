"""The command line's own edges: names that look like flags, and paths that are empty."""

import subprocess
import sys

import pytest
from running import invsolve, picture, save, world  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("world")
QUICK = ("run", "--simulate", "--operator", "inpaint", "--prior", "prior.py:white", "--samples", 2)


def test_after_two_dashes_a_name_may_start_with_a_dash(world):  # noqa: F811
    save(world / "-dash.png", picture())
    code, _, err = invsolve(*QUICK, "--steps", 5, "--device", "cpu", "--out", "a", "--", "-dash.png")
    assert code == 0, err
    assert (world / "a" / "metrics.json").is_file()


def test_a_flag_after_two_dashes_is_a_name():
    code, _, err = invsolve(*QUICK, "--", "--debug")
    assert code == 2
    assert "there is no file" in err
    assert "--debug" in err


@pytest.mark.parametrize("words", [("run", "--operator", "inpaint"), ("sample",)])
def test_an_empty_out_is_refused(world, words):  # noqa: F811
    code, _, err = invsolve(*words, "--out", "")
    assert code == 2
    assert "the path is empty" in err
    assert list(world.glob("*/")) == []


@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_closed_stream_stands_in_no_way(closed):
    command = f"{sys.executable} -m invsolve list operators {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run = f"{sys.executable} -m invsolve run no.png --operator denoise --simulate {closed}"
    done = subprocess.run(["sh", "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
