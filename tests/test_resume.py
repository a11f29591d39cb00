"""What a run survives: damaged and stale files, workers that die, and every way of being stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from running import invsolve, picture, save, serve_without_torch, simulate, world  # noqa: F401  world is a fixture

from invsolve.files import PART
from invsolve.result import Result
from invsolve.run import drive
from invsolve.run.events import Done, Failed
from invsolve.run.executor import Workers
from invsolve.run.units import Unit, chunk_size, cost, plan

pytestmark = pytest.mark.usefixtures("world")
BATCH = ("--sampler.batch", "1", "--out", "a")


def samples(directory="a"):
    return Result.load(f"{directory}/posterior.h5").samples


def shards():
    return sorted(Path("a/units").glob("*.h5"))


def times():
    return {path.name: path.stat().st_mtime_ns for path in shards()}


def unfinish():
    """Take away what a run writes after its units."""
    for name in ("finished.json", "metrics.json", "posterior.h5"):
        Path("a", name).unlink()


def test_missing_units_are_computed_and_the_others_kept():
    simulate(*BATCH, samples=3)
    before, kept = samples(), times()
    unfinish()
    shards()[1].unlink()
    assert simulate(*BATCH, samples=3)[0] == 0
    assert torch.equal(samples(), before)
    assert [name for name, when in times().items() if kept[name] != when] == [list(kept)[1]]


def cut(path):
    path.write_bytes(path.read_bytes()[:-500])


def emptied(path):
    path.write_bytes(b"")


def bent(path):
    """Flip one bit in the middle of the samples."""
    content, place = bytearray(path.read_bytes()), path.read_bytes().find(samples()[0].numpy().tobytes()[:64])
    content[place + 33] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, emptied, bent])
def test_a_damaged_shard_is_named_and_computed_again(damage):
    simulate(*BATCH)
    before = samples()
    damage(shards()[0])
    unfinish()
    code, _, err = simulate(*BATCH)
    assert code == 0
    assert f"{shards()[0].name} is damaged" in err
    assert torch.equal(samples(), before)


def test_leftovers_of_a_killed_process_are_swept():
    simulate(*BATCH)
    unfinish()
    stale = [Path("a", f".metrics.json.77{PART}"), Path("a/units", f".00000.h5.77{PART}")]
    for path in stale:
        path.write_bytes(b"half")
    simulate(*BATCH)
    assert not any(path.exists() for path in stale)


def test_a_damaged_problem_file_is_made_again():
    simulate(*BATCH)
    before, kept = samples(), times()
    unfinish()
    cut(Path("a/units/problem.npz"))
    shards()[0].unlink()
    assert simulate(*BATCH)[0] == 0
    assert torch.equal(samples(), before)
    assert times().items() & kept.items()


def test_a_run_of_several_goes_on_image_by_image():
    words = (
        "run",
        "photo.png",
        "other.png",
        "--simulate",
        "--operator",
        "inpaint",
        "--prior",
        "prior.py:white",
    )
    words = (*words, "--steps", "4", "--samples", "2", "--out", "b", "--device", "cpu")
    invsolve(*words)
    before = {name: samples(f"b/{name}") for name in ("photo", "other")}
    Path("b/finished.json").unlink()
    next(Path("b/other/units").glob("*.h5")).unlink()
    assert invsolve(*words)[0] == 0
    assert all(torch.equal(samples(f"b/{name}"), values) for name, values in before.items())


def test_an_input_that_changes_while_the_run_is_at_work_is_not_taken_for_done(monkeypatch):
    def close(work, kept=drive._Work._close):
        save("photo.png", picture(9))
        kept(work)

    with monkeypatch.context() as during:
        during.setattr(drive._Work, "_close", close)
        assert simulate("--out", "a")[0] == 0
    code, _, err = simulate("--out", "a")
    assert code == 2
    assert "input sha256" in err


def test_a_failed_unit_is_tried_again_by_the_same_command():
    Path("moody").touch()
    assert simulate(*BATCH, prior="moody")[0] == 3
    Path("moody").unlink()
    assert simulate(*BATCH, prior="moody")[0] == 0
    assert len(shards()) == 2
    assert not Path("a/failures.csv").exists()


def units(*ids):
    return [Unit(Path().absolute(), first, 1, name) for first, name in enumerate(ids)]


def outcome(events):
    return {e.unit.id: type(e) for e in events if isinstance(e, Done | Failed)}


def test_a_unit_that_kills_its_worker_fails_alone_and_the_signal_is_named():
    workers = Workers(2, serve_without_torch)
    events = list(workers(units("a", "die", "b", "c", "fail")))
    workers.close()
    assert outcome(events) == {"a": Done, "b": Done, "c": Done, "die": Failed, "fail": Failed}
    assert any("signal 9" in e.message for e in events if isinstance(e, Failed) and e.unit.id == "die")


def test_a_unit_whose_worker_died_once_is_done_by_another():
    workers = Workers(1, serve_without_torch)
    assert set(outcome(workers(units("die once 1", "die once 2", "a"))).values()) == {Done}
    workers.close()


def test_units_are_taken_only_when_a_worker_is_free():
    taken = []

    def source():
        for unit in units(*"abcdef"):
            taken.append(unit.id)
            yield unit

    workers = Workers(2, serve_without_torch)
    first = next(iter(workers(source())))
    workers.close()
    assert first.unit.id in taken
    assert len(taken) <= 2


def test_workers_end_when_their_parent_is_killed():
    program = (
        "from running import serve_without_torch\nfrom invsolve.run.executor import Workers\n"
        "import os, signal\n"
        "if __name__ == '__main__':\n"
        "    workers = Workers(2, serve_without_torch)\n"
        "    print(*[w.process.pid for w in workers._workers], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    Path("parent.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "parent.py"], capture_output=True, text=True, env=environment)
    for pid in map(int, done.stdout.split()):
        assert vanishes(pid)


def vanishes(pid, seconds=20):
    for _ in range(seconds * 20):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def settings(steps=50, batch=None):
    return {"run": {"steps": steps}, "sampler": {} if batch is None else {"batch": batch}}


def test_chunks_follow_from_pixels_and_steps_alone():
    sizes = [chunk_size(settings(), side**2, "cpu") for side in (16, 128, 256, 512)]
    assert sizes == [4, 4, 1, 1]
    assert chunk_size(settings(steps=500), 256**2, "cpu") == 1
    assert chunk_size(settings(batch=1), 16**2, "cpu") == 1
    sets = {"run": {"steps": 500}, "sampler": {"draws": 100, "particles": 800}}
    assert chunk_size(sets, 256**2, "cpu") == 100


def test_a_sample_s_cost_counts_what_its_sampler_does_at_each_step():
    """Measured on a photo of 64 x 64: 600 calls of pnp-dm take as long as 200 steps of pc, and so on."""
    kinds = {
        "daps": ({"steps": 100}, {"centre": "mean", "ode_steps": 5}, 100),
        "daps with an ode": ({"steps": 100}, {"centre": "ode", "ode_steps": 5}, 290),
        "daps with langevin": ({"steps": 100}, {"inner": "langevin", "inner_steps": 100}, 260),
        "pnp-dm": ({"steps": 100}, {"prior_steps": 5}, 250),
        "ode": ({"steps": 8}, {"rtol": 1e-3, "atol": 1e-4}, 160),
        "ode at tight tolerances": ({"steps": 8}, {"rtol": 1e-8, "atol": 1e-9}, 1600),
    }
    for name, (run, sampler, steps) in kinds.items():
        assert cost({"run": run, "sampler": sampler}) == pytest.approx(steps, rel=0.1), name


def test_the_adaptive_ode_s_few_least_steps_do_not_make_long_units():
    adaptive = {"run": {"steps": 8}, "sampler": {"rtol": 1e-3, "atol": 1e-4, "batch": None}}
    assert [chunk_size(adaptive, side**2, "cpu") for side in (16, 64, 128, 256)] == [4, 4, 1, 1]


def test_units_cover_every_sample_once_and_their_names_tell_settings_apart():
    made = plan(Path(), {"keep": 0.3}, 7, 3)
    assert [k for unit in made for k in range(unit.first, unit.first + unit.n)] == list(range(7))
    other = plan(Path(), {"keep": 0.4}, 7, 3)
    assert not {unit.id for unit in made} & {unit.id for unit in other}


WORDS = ("run", "large.png", "--simulate", "--operator", "inpaint", "--prior", "prior.py:slow")
LONG = (*WORDS, "--device", "cpu", "--steps", "150", "--samples", "4", "--sampler.batch", "1")


@pytest.fixture(scope="module")
def uninterrupted():
    """Samples of that run when nothing stops it, once they are known."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_run_stopped_in_any_way_goes_on_to_the_same_samples(sent, code, monkeypatch, uninterrupted):
    """The first start has processes, the second and the one to compare with have none: all the same."""
    save("large.png", picture(shape=(48, 64)))
    hearing = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's & is deaf
    command = [sys.executable, "-c", f"{hearing}; from invsolve.cli import main; main()", *LONG, "--out", "a"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not shards() and process.poll() is None:
        time.sleep(0.05)
    if sent == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
    else:
        process.send_signal(getattr(signal, sent))
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert ("same command" in err) == (sent != "SIGKILL")
    assert "Traceback" not in err
    kept = times()
    assert 1 <= len(kept) < 4
    monkeypatch.setattr(drive, "_WORTH", 1e18)
    assert invsolve(*LONG, "--out", "a")[0] == 0
    if not uninterrupted:
        assert invsolve(*LONG, "--out", "b")[0] == 0
        uninterrupted.append(samples("b"))
    assert torch.equal(samples("a"), uninterrupted[0])
    assert kept.items() <= times().items()
    assert json.loads(Path("a/metrics.json").read_text())["samples"] == 4
