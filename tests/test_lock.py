"""The lock of a run's directory."""

import os
from pathlib import Path

import pytest

from invsolve import lock
from invsolve.errors import OutputError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no flock")


def test_a_held_directory_is_refused_and_free_again_afterwards(tmp_path):
    out = tmp_path / "a"
    with lock.locked(out):
        with pytest.raises(OutputError, match="another run"), lock.locked(out):
            pass
        (out / "result").touch()
    with lock.locked(out):
        assert (out / ".lock").exists()
    assert os.listdir(out) == ["result"]


def test_an_empty_directory_goes_with_its_lock(tmp_path):
    with lock.locked(tmp_path / "a"):
        pass
    assert not (tmp_path / "a").exists()


def test_a_lock_unlinked_between_opening_and_locking_is_taken_anew(tmp_path, monkeypatch):
    """The first run ends just then: what the second has opened is a file without a name."""
    real, ended = lock._lock, []

    def late(file, directory):
        if not ended:
            ended.append(True)
            (directory / ".lock").unlink()
        real(file, directory)

    monkeypatch.setattr(lock, "_lock", late)
    held = pytest.raises(OutputError, match="another run")
    with lock.locked(tmp_path / "a"), held, lock.locked(tmp_path / "a"):
        pass


def test_a_directory_removed_before_the_lock_is_opened_is_made_again(tmp_path, monkeypatch):
    real, ended = lock.writable, []

    def late(directory):
        real(directory)
        if not ended:
            ended.append(True)
            Path(directory).rmdir()

    monkeypatch.setattr(lock, "writable", late)
    with lock.locked(tmp_path / "a"):
        assert (tmp_path / "a" / ".lock").exists()
