"""SIGTERM and Ctrl-C: heard where somebody may choose, by the one who decides."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from invsolve.signals import Terminated, deaf, terminable

ENDLESS = """
from pathlib import Path
def endless(shape):
    Path("begun").touch()
    while True: pass
"""


@pytest.fixture(autouse=True)
def answers():
    """Whatever a test leaves behind is undone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, answer in before.items():
        signal.signal(number, answer)


def test_a_sigterm_is_heard_inside_alone():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_one_process_of_several_ends_at_once(monkeypatch):
    """It may wait for a peer that hangs in a library where Python hears nothing."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    with terminable():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with terminable():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with terminable(), deaf():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.slow
def test_a_check_that_is_interrupted_leaves_no_process(tmp_path):
    """As from a terminal: the child hears it too, unless it is deaf."""
    (tmp_path / "mine.py").write_text(ENDLESS)
    hearing = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's & is deaf
    code = f"{hearing}; from invsolve.cli import main; main(['check', 'operator:./mine.py:endless'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)  # the child would keep stderr open
    assert (process.returncode, out, err) == (130, "", "interrupted.\n")
