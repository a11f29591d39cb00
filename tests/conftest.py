"""One thread for every test: the answers do not depend on it, the time on a busy machine does."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
