import logging
import sys

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Threads that wait for each other cost more than tensors as small as these do."""
    torch.set_num_threads(1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what the command sets for its process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("PYTHONWARNINGS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that it is restored, also where it was absent
        monkeypatch.delenv(name)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield tmp_path
    root.setLevel(level)
    root.handlers[:] = handlers
