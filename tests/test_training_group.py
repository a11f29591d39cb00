"""Several processes of one training, ours or torchrun's: one loss curve, and one message when they fail."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invsolve.errors import Divergence, InputError, Interrupted
from invsolve.priors.catalogue import load_prior
from invsolve.training import checkpoint, data, group, kinds, loop, read_config, train

TOML = """
name = "tiny"
scales = [1]
crop = 8
batch = 4
images = 1600
warm_up = 5
save_seconds = 0.2
[architecture]
stem = 4
widths = [8, 8]
blocks = 1
"""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


LEAVES = """
import contextlib
import sys
from pathlib import Path
from invsolve.training import group

def threads():
    return [t.read_text().strip() for t in Path("/proc/self/task").glob("*/comm")]

def work():
    import torch
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    assert "torch.distributed.nn.functional" in sys.modules, "which torch's optimizers no longer import"
    assert "gloo_tcp_loop" in threads()
    if sys.argv[1:]:
        raise SystemError

with contextlib.suppress(SystemError):
    group.start(work, (), 1)
print([name for name in threads() if "gloo" in name])
"""


@pytest.fixture
def place(tmp_path):
    """A config and three small random pictures."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = rng.integers(0, 256, (24, 20 + 4 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "c.toml").write_text(TOML)
    return tmp_path


def words(place, out):
    named = {"config": "c.toml", "data": "images", "out": out}
    return ["invsolve", "train", *(w for k, v in named.items() for w in (f"--{k}", str(place / v)))]


def losses(out):
    return [line.split(",")[1] for line in (out / "loss.csv").read_text().splitlines()]


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in listed}
    return [pid for pid, command in commands.items() if b"invsolve" in command or b"spawn_main" in command]


def ended(pid):
    """Whether a process is no longer, or waits only for its parent to take note."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until_ended(pids):
    until = time.monotonic() + 60
    while not all(ended(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)


def killed_on_the_way(command, out, held=False):
    """Start a training, send signal 9 to its last process after a checkpoint, and wait for the rest.

    held: stop whoever started the processes until both have ended. torchrun ends the other one within
    0.1 s, which may be before that one has seen the loss of its peer and said so.
    """
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while checkpoint.latest(out) is None and started.poll() is None:
        time.sleep(0.02)
    workers = children(started)
    assert len(workers) == 2
    if held:
        started.send_signal(signal.SIGSTOP)
    os.kill(workers[-1], signal.SIGKILL)
    if held:
        wait_until_ended(workers)
        started.send_signal(signal.SIGCONT)
    said, _ = started.communicate(timeout=300)
    assert started.returncode != 0
    assert len(losses(out)) < 200
    return said


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see the processes")


@linux
@pytest.mark.slow
def test_torchrun_and_our_own_processes_leave_one_curve_also_where_one_was_killed(place):
    """800 images of each process; one of torchrun's is killed by signal 9, and the same command goes on."""
    torchrun = [*TORCHRUN, "-m", *words(place, "torchrun")]
    said = killed_on_the_way(torchrun, place / "torchrun", held=True)
    assert "another process of this training is gone" in said
    done = subprocess.run(torchrun, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(place / "torchrun" / "tiny.safetensors")]  # one of the two speaks
    config = read_config(place / "c.toml")
    train(config, [place / "images"], place / "own", processes=2)
    assert losses(place / "torchrun") == losses(place / "own")
    assert len(losses(place / "own")) == 200
    assert load_prior(place / "own" / "tiny.safetensors").metadata["images"] == "1600"


@linux
@pytest.mark.slow
def test_a_killed_process_of_ours_is_named_and_the_same_command_goes_on(place):
    own = [sys.executable, "-m", *words(place, "own"), "--processes", "2"]
    said = killed_on_the_way(own, place / "own")
    assert "process 1 of this training was killed by SIGKILL. The same command goes on" in said
    assert "internal bug" not in said


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code", "processes"), [("SIGINT", 130, 2), ("SIGTERM", 143, 2), ("SIGTERM", 143, 1)]
)
def test_a_stopped_training_leaves_no_process_and_says_how_to_go_on(place, sent, code, processes):
    """The signal reaches the command alone, as that of a scheduler or of `kill` does."""
    hearing = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's & is deaf
    flags = [*words(place, "own")[1:], "--processes", str(processes)]
    command = [sys.executable, "-c", f"{hearing}; from invsolve.cli import main; main({flags!r})"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while checkpoint.latest(place / "own") is None and started.poll() is None:
        time.sleep(0.02)
    workers = children(started)
    assert len(workers) == (processes if processes > 1 else 0)
    started.send_signal(getattr(signal, sent))
    said, _ = started.communicate(timeout=60)
    last = said.splitlines()[-1]
    assert (started.returncode, last) == (
        code,
        "interrupted: the same command goes on from the last checkpoint.",
    )
    assert "Traceback" not in said
    assert all(ended(pid) for pid in workers)
    assert checkpoint.latest(place / "own") is not None
    assert not (place / "own" / ".lock").exists()


def test_processes_end_with_the_call_that_waits_for_them(monkeypatch):
    seen = []

    def interrupted(*args, **options):
        context = torch.multiprocessing.spawn(*args, **options)
        seen.extend(context.processes)
        context.join = lambda: signal.raise_signal(signal.SIGINT)
        return context

    monkeypatch.setattr(group, "spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        group.start(time.sleep, (60,), 2)
    for process in seen:
        process.join(10)
    assert [process.exitcode for process in seen] == [-signal.SIGKILL] * 2


@pytest.mark.slow
def test_what_is_wrong_in_a_process_of_ours_is_said_in_its_own_words(place):
    config = dataclasses.replace(read_config(place / "c.toml"), crop=99)
    with pytest.raises(InputError, match="no image of at least 99 pixels"):
        train(config, [place / "images"], place / "own", processes=2)


def test_a_lost_peer_is_an_interruption(monkeypatch):
    def gone(tensor):
        raise RuntimeError("Read error: Connection reset by peer")

    monkeypatch.setattr(group, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", gone)
    with pytest.raises(Interrupted, match="goes on from the last checkpoint") as caught:
        group.average(torch.zeros(2))
    assert caught.value.exit_code == 130


@pytest.mark.parametrize("fails", [(), ("fails",)])
def test_no_thread_of_the_group_outlives_it(fails):
    """One that did took the interpreter's lock while the process ended, which aborts it."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    command = [sys.executable, "-c", LEAVES, *fails]
    ran = subprocess.run(command, env=os.environ | alone, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr[-500:]) == (0, "[]\n", "")


def test_the_gradient_of_two_processes_is_the_mean_of_theirs(place, monkeypatch):
    config = dataclasses.replace(read_config(place / "c.toml"), clip=1e9)
    run, bank = loop.Run(config), data.load_bank([place / "images"], config)
    task, alone = kinds.Denoising(config, bank), []
    for rank in (0, 1):
        loop.gradient_step(run, task, rank)
        alone.append(run.gradient.clone())
    monkeypatch.setattr(group, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda gradient: gradient.add_(alone[1]))
    loop.gradient_step(run, task, 0)
    assert not torch.allclose(*alone)
    torch.testing.assert_close(run.gradient, (alone[0] + alone[1]) / 2)


def test_processes_under_torchrun_are_refused(place, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="torchrun started them already"):
        train(read_config(place / "c.toml"), [place / "images"], place / "out", processes=2)


def test_a_gradient_that_is_no_number_stops_before_the_weights_are_touched(place, monkeypatch):
    config = read_config(place / "c.toml")
    run = loop.Run(config)
    task = kinds.Denoising(config, data.load_bank([place / "images"], config))

    def poisoned(gradient):  # a peer's share, while this process's loss is finite
        gradient[3] = float("nan")

    monkeypatch.setattr(loop, "average", poisoned)
    before = run.vector.clone()
    with pytest.raises(Divergence, match="gradient became nan at step 0"):
        next(loop.steps(run, task))
    assert torch.equal(run.vector, before)


def test_the_hash_of_a_file_is_that_of_the_config_whatever_the_budget(place):
    config = read_config(place / "c.toml")
    train(config, [place / "images"], place / "out", images=8, seconds=99.0)
    assert load_prior(place / "out" / "tiny.safetensors").metadata["config_hash"] == config.digest()
