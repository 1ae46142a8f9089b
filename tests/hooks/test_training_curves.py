import logging
import sys

import numpy as np
import pytest
from classy_vision.hooks import build_hook
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer
from PIL import Image

from tests.commands.training import digits


def trained(folder, **changes):
    hook = build_hook({"name": "training_curves", "folder": str(folder), "title": "two epochs"})
    task = build_task(digits(2, 64, **changes))
    task.set_hooks([hook])
    LocalTrainer().train(task)
    return task, hook


def test_history_has_every_phase(tmp_path):
    task, hook = trained(tmp_path, meters={"accuracy": {"topk": [1, 3]}})
    history = hook.state.history
    assert [(h["phase"], h["epoch"]) for h in history] == [
        ("train", 1),
        ("test", 1),
        ("train", 2),
        ("test", 2),
    ]
    # lr steps down in the middle of the run; shown is what the phase was trained with.
    assert [h["options"].get("lr") for h in history] == [0.05, None, 0.005, None]
    assert history[0]["options"]["momentum"] == 0.9
    assert history[-1]["loss"] == pytest.approx(np.mean(task.losses))
    assert history[-1]["meters"] == {"accuracy": task.meters[0].value}
    assert set(history[0]["meters"]["accuracy"]) == {"top_1", "top_3"}


def test_history_is_part_of_the_state(tmp_path):
    _, hook = trained(tmp_path)
    restored = build_hook({"name": "training_curves"})
    restored.set_classy_state(hook.get_classy_state())
    assert restored.state.history == hook.state.history


@pytest.mark.parametrize(("topk", "panels"), [([1], 3), ([1, 3], 4), (None, 2)])
def test_picture(tmp_path, topk, panels):
    meters = {"accuracy": {"topk": topk}} if topk else {}
    pyplot = "matplotlib.pyplot" in sys.modules
    _, hook = trained(tmp_path / "new folder", meters=meters)
    with Image.open(tmp_path / "new folder" / "curves.png") as image:
        assert image.size == (660 * panels, 540)
        assert len(np.unique(image)) > 10  # something is drawn
    titles = [axes.get_title() for axes in hook.figure().axes]
    assert titles[0] == "loss"
    assert titles[-1] == "learning rate"
    assert len(titles) == panels
    assert ("matplotlib.pyplot" in sys.modules) == pyplot  # the figure is drawn without pyplot


def test_a_test_only_run_leaves_the_picture_of_the_training(tmp_path):
    trained(tmp_path)
    before = (tmp_path / "curves.png").read_bytes()
    _, hook = trained(tmp_path, test_only=True, num_epochs=1)
    assert [h["phase"] for h in hook.state.history] == ["test"]
    assert (tmp_path / "curves.png").read_bytes() == before


def test_one_log_line_without_matplotlib(tmp_path, monkeypatch, caplog):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.INFO):
        trained(tmp_path)
    lines = [r.getMessage() for r in caplog.records if "matplotlib" in r.getMessage()]
    assert lines == ["no curves.png without matplotlib: pip install 'classy-gc[examples]'"]
    assert not list(tmp_path.iterdir())
