import gc
import logging
import os
import signal
import sys

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, but some tests press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that wait for each other take longer than the work on such small tensors, above all on a
# busy machine. Set here so that it holds for doctests and for the processes that tests start. torch
# is not imported here: the process that only hands out the tests needs none.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish():
    """What is imported stays: nothing of it is looked at again for garbage, which takes 0.4 s."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        from tests.devices import DEVICES

        metafunc.parametrize("device", DEVICES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def device(request):
    """The device on which a test marked ``on_every_device`` makes its tensors."""
    import torch

    if request.param == "cpu":  # setting it would slow every call down
        yield request.param
        return
    torch.set_default_device(request.param)
    yield request.param
    torch.set_default_device(None)


@pytest.fixture
def here_with_curves(tmp_path, monkeypatch):
    """An empty current folder; undoes what the command sets for its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("PYTHONWARNINGS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that it is restored even where it was absent
        monkeypatch.delenv(name)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield tmp_path
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def here(here_with_curves, monkeypatch):
    """The same, where trainings draw no curves: drawing would take longer than the training."""
    from classy_gc.hooks import TrainingCurvesHook

    monkeypatch.setattr(TrainingCurvesHook, "on_end", TrainingCurvesHook._noop)
    return here_with_curves


@pytest.fixture
def box(tmp_path_factory):
    """The folder behind ``box://``."""
    from fvcore.common.file_io import PathManager

    from tests.box import Box

    folder = tmp_path_factory.mktemp("box")
    PathManager.register_handler(Box(folder), allow_override=True)
    return folder
