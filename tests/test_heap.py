"""Memory that a process of our own keeps for its next step."""

import subprocess
import sys

import pytest

from invsolve.heap import keep_freed_memory

FAULTS = """
import resource, torch
from invsolve.heap import keep_freed_memory
torch.set_num_threads(1)
if {keep}:
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(2**24)  # 64 MB: more than glibc keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    """Pages that the system had to fill while 40 blocks came and went."""
    code = FAULTS.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_serves_again():
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    assert faults(keep=True) < faults(keep=False) / 4  # a few blocks for all 40
