import gc
import logging
import os
import signal
import sys

import pytest
import torch
from fvcore.common.file_io import NativePathHandler, PathHandler, PathManager

from classy_gc.hooks import TrainingCurvesHook
from tests.devices import DEVICES

DRAW = TrainingCurvesHook.on_end

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs with SIGINT ignored, but some tests press Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that wait for each other take longer than the work on such small tensors, above all on a
# busy machine. Set here so that it holds for doctests and for the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish():
    """What is imported stays: nothing of it is looked at again for garbage, which takes 0.4 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=DEVICES, scope="module")
def device(request):
    """The device on which a test marked ``on_every_device`` makes its tensors."""
    if request.param == "cpu":  # setting it would slow every call down
        yield request.param
        return
    torch.set_default_device(request.param)
    yield request.param
    torch.set_default_device(None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; undoes what the command sets for its process.

    Trainings draw no curves there: drawing would take longer than the training.
    """
    monkeypatch.setattr(TrainingCurvesHook, "on_end", TrainingCurvesHook._noop)
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
def here_with_curves(here, monkeypatch):
    """As ``here``, and trainings draw ``curves.png``."""
    monkeypatch.setattr(TrainingCurvesHook, "on_end", DRAW)
    return here


class Box(PathHandler):
    """``box://``: a local folder behind a scheme, as of remote storage."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.native = folder, NativePathHandler()

    def _get_supported_prefixes(self):
        return ["box://"]

    def _local(self, path):
        return str(self.folder / path.removeprefix("box://"))

    def _copy(self, source, target, *args):
        return self.native._copy(self._local(source), self._local(target), *args)


def _forward(name):
    def method(self, path, *args, **kwargs):
        return getattr(self.native, name)(self._local(path), *args, **kwargs)

    setattr(Box, name, method)


for name in ("_open", "_exists", "_isfile", "_isdir", "_ls", "_mkdirs", "_rm"):
    _forward(name)


@pytest.fixture
def box(tmp_path_factory):
    """The folder behind ``box://``."""
    folder = tmp_path_factory.mktemp("box")
    PathManager.register_handler(Box(folder), allow_override=True)
    return folder
