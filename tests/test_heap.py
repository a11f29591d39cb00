"""Memory that a process of our own keeps for its next step."""

import subprocess
import sys

import pytest

from invsolve.heap import keep_freed_memory

FAULTS = """
import resource, torch
from invsolve.heap import keep_freed_memory
KEEP
torch.ones(2**22).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**22).sum()  # 16 MB, 4,096 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_serves_again():
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    code = FAULTS.replace("KEEP", "keep_freed_memory()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 4 * 4096  # the heap may grow by a few blocks; all 20 would be 81,920
