from pathlib import Path

import pytest
import torch
from classy_vision.generic.util import load_checkpoint
from classy_vision.hooks import CheckpointHook, ClassyHook, build_hook
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

from classy_gc.files import temporary
from tests.commands.training import digits

SAVED = "model_phase-{}_end.torch"


def trained(folder, checkpoint=None, hooks=(), dataset=("train", "test"), epochs=4, **options):
    """A few epochs of 64 digits; ``options`` are those of the hook."""
    config = digits(epochs, 64)
    config["dataset"] = {phase: config["dataset"][phase] for phase in dataset}
    torch.manual_seed(0)
    task = build_task(config)
    hook = build_hook({"name": "rolling_checkpoint", "folder": str(folder), **options})
    task.set_hooks([hook, *hooks])
    if checkpoint:
        task.set_checkpoint(str(checkpoint))
    LocalTrainer().train(task)
    return task


def state(path):
    return load_checkpoint(str(path))["classy_state_dict"]


def names(folder):
    return {path.name for path in folder.iterdir()}


def same(a, b):
    return all(torch.equal(x, b[k]) for k, x in a.items())


def weights(state):
    return state["base_model"]["model"]["trunk"]


@pytest.mark.parametrize(
    ("options", "phases"),
    [
        ({}, [0, 2, 4, 6]),
        ({"interval": 2}, [2, 6]),
        ({"interval": 3}, [4, 6]),  # the last one, whatever the interval
        ({"max_keep": 2}, [4, 6]),
        ({"interval": 3, "max_keep": 1}, [6]),
    ],
)
def test_what_is_saved(tmp_path, options, phases):
    task = trained(tmp_path / "new" / "folder", **options)
    files = tmp_path / "new" / "folder"
    assert names(files) == {"checkpoint.torch", *map(SAVED.format, phases)}
    assert [state(files / SAVED.format(phase))["phase_idx"] for phase in phases] == phases
    newest = state(files)
    assert newest["phase_idx"] == 6
    assert same(weights(newest), weights(task.get_classy_state()))
    assert same(weights(newest), weights(state(files / SAVED.format(6))))


def test_files_of_an_older_run_are_told_unless_it_is_resumed(tmp_path, caplog):
    for checkpoint, told in ((None, False), (None, True), (tmp_path, False)):
        caplog.clear()
        trained(tmp_path, checkpoint, epochs=2)
        assert any("has files of an older run" in m for m in caplog.messages) == told


def test_max_keep_counts_no_file_of_an_older_run(tmp_path):
    trained(tmp_path)
    trained(tmp_path, interval=2, max_keep=2)
    ours = {SAVED.format(phase) for phase in (2, 6)}
    assert names(tmp_path) == {"checkpoint.torch", SAVED.format(0), SAVED.format(4), *ours}


def ema_weights(state):
    """Trained and averaged weights, as the hook keeps them."""
    hook = state["hooks"]["ExponentialMovingAverageModelHook"]
    return hook["model_state"], hook["ema_model_state"]


def loaded(path):
    task = build_task(digits())
    task.base_model.set_classy_state(state(path)["base_model"])
    return dict(task.base_model.named_parameters())


def ema():
    return build_hook({"name": "ema_model_weights", "decay": 0.9, "device": "cpu"})


def test_the_last_checkpoint_holds_trained_weights_and_the_best_what_was_tested(tmp_path):
    for folder, interval in (("each", 1), ("last", 4)):
        folder = tmp_path / folder
        task = trained(folder, hooks=[ema()], save_best="loss", interval=interval)
        weights, averages = ema_weights(state(folder))
        assert not same(loaded(folder), averages)
        assert same(loaded(folder), weights)
        assert same(dict(task.base_model.named_parameters()), averages)  # as after stock training
        best = folder / "best.torch"
        weights, averages = ema_weights(state(best))
        assert same(loaded(best), averages)
        assert not same(loaded(best), weights)
    # The same weights as in the checkpoint of Classy Vision's own hook.
    (tmp_path / "stock").mkdir()
    trained(tmp_path / "unused", hooks=[ema(), CheckpointHook(str(tmp_path / "stock"))])
    assert same(loaded(tmp_path / "stock"), loaded(tmp_path / "each"))


def test_through_a_path_handler(tmp_path, box):
    trained(tmp_path, max_keep=2, save_best="loss", hooks=[ema()])
    trained("box://run", max_keep=2, save_best="loss", hooks=[ema()])
    assert names(box / "run") == names(tmp_path)
    for name in names(tmp_path):
        assert same(weights(state(f"box://run/{name}")), weights(state(tmp_path / name)))
    assert trained("box://run", "box://run").phase_idx == 7
    assert not Path("box:").exists()


def test_going_back_keeps_what_is_being_trained(tmp_path):
    trained(tmp_path)
    (tmp_path / SAVED.format(0)).replace(tmp_path / "checkpoint.torch")
    seen = []

    class Look(ClassyHook):
        on_start = on_step = on_phase_end = on_end = ClassyHook._noop

        def on_phase_start(self, task):
            seen.append(names(tmp_path) - {"checkpoint.torch"})

    trained(tmp_path, tmp_path, hooks=[Look()], max_keep=1)
    # After phase 2 was trained again, the files of phases 4 and 6 are still the old run's.
    assert seen[2] == {SAVED.format(phase) for phase in (2, 4, 6)}
    assert names(tmp_path) == {"checkpoint.torch", SAVED.format(6)}


@pytest.mark.parametrize("save_best", ["loss", "accuracy/top_1"])
@pytest.mark.parametrize("dataset", [("train", "test"), ("train",)], ids=len)
def test_best(tmp_path, save_best, dataset):
    curves = build_hook({"name": "training_curves", "folder": str(tmp_path / "curves")})
    trained(tmp_path, save_best=save_best, hooks=[curves], dataset=dataset)
    history = [x for x in curves.state.history if x["phase"] == dataset[-1]]
    if save_best == "loss":
        best = min(history, key=lambda x: x["loss"])
        value = best["loss"]
    else:
        best = max(history, key=lambda x: x["meters"]["accuracy"]["top_1"])
        value = best["meters"]["accuracy"]["top_1"]
    saved = state(tmp_path / "best.torch")
    assert saved["hooks"]["RollingCheckpointHook"]["best"] == {save_best: value}
    assert saved["train_phase_idx"] + 1 == best["epoch"]
    assert saved["train"] == (dataset == ("train",))


def test_best_survives_a_resume(tmp_path):
    trained(tmp_path, save_best="accuracy/top_1")
    resumed, perfect = torch.load(tmp_path / SAVED.format(2)), {"accuracy/top_1": 1.5}
    resumed["classy_state_dict"]["hooks"]["RollingCheckpointHook"]["best"] = perfect
    torch.save(resumed, tmp_path / "perfect.torch")
    before = (tmp_path / "best.torch").read_bytes()
    trained(tmp_path, tmp_path / "perfect.torch", save_best="accuracy/top_1")
    assert (tmp_path / "best.torch").read_bytes() == before
    assert state(tmp_path)["hooks"]["RollingCheckpointHook"]["best"] == perfect


def test_the_checkpoint_of_an_earlier_version_resumes(tmp_path):
    trained(tmp_path, save_best="accuracy/top_1")
    earlier = torch.load(tmp_path / SAVED.format(2))
    hooks = earlier["classy_state_dict"]["hooks"]
    hooks["RollingCheckpointHook"] = {"best": 1.5, "best_of": "accuracy/top_1"}
    torch.save(earlier, tmp_path / "earlier.torch")
    before = (tmp_path / "best.torch").read_bytes()
    trained(tmp_path, tmp_path / "earlier.torch", save_best="accuracy/top_1")
    assert (tmp_path / "best.torch").read_bytes() == before
    saved = state(tmp_path)["hooks"]["RollingCheckpointHook"]
    assert saved == {"best": {"accuracy/top_1": 1.5}, "saved": [4, 6]}


def test_a_best_loss_is_no_best_accuracy(tmp_path):
    trained(tmp_path, save_best="loss")
    trained(tmp_path, tmp_path / SAVED.format(2), save_best="accuracy/top_1")
    best = state(tmp_path / "best.torch")["hooks"]["RollingCheckpointHook"]["best"]
    assert list(best) == ["accuracy/top_1"]
    assert best["accuracy/top_1"] <= 1


def test_nan_is_never_the_best(tmp_path):
    task = trained(tmp_path, save_best="loss")
    (hook,) = task.hooks
    for best in ({}, hook.state.best):
        hook.state.best, task.losses = best, [float("nan")]
        assert not hook.is_best(task)
        assert hook.state.best == best


def test_leftovers_of_a_kill_are_removed(tmp_path):
    trained(tmp_path)
    (tmp_path / "mine.tmp").touch()
    for name in ("checkpoint.torch", "best.torch", SAVED.format(3)):
        temporary(tmp_path / name).write_bytes(b"half")
    before = names(tmp_path)
    trained(tmp_path, tmp_path)
    assert before - names(tmp_path) == {name for name in before if name.startswith(".")}
    assert (tmp_path / "mine.tmp").exists()


def test_a_whole_checkpoint_counts_though_the_file_after_it_fails(tmp_path, monkeypatch):
    (tmp_path / SAVED.format(0)).mkdir()
    hook = build_hook({"name": "rolling_checkpoint", "folder": str(tmp_path)})
    monkeypatch.setitem(globals(), "build_hook", lambda config: hook)
    with pytest.raises(IsADirectoryError):
        trained(tmp_path)
    assert hook.saved_phase == state(tmp_path / "checkpoint.torch")["phase_idx"] == 0
