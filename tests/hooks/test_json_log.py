import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from classy_vision.hooks import CheckpointHook, ClassyHook, build_hook
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

from classy_gc.hooks.json_log import write_line
from tests.commands.training import digits


class Note(ClassyHook):
    """A hook that writes a line of its own at the start of each phase."""

    on_start = on_step = on_phase_end = on_end = ClassyHook._noop

    def on_phase_start(self, task):
        write_line(task, "note", phase_idx=task.phase_idx)


def trained(folder, checkpoint=None, epochs=3, **changes):
    """Trains with Classy's own hook for checkpoints, and returns the log."""
    task = build_task(digits(epochs, 64, **changes))
    log = build_hook({"name": "json_log", "folder": str(folder)})
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    task.set_hooks([log, Note(), CheckpointHook(str(folder / "checkpoints"))])
    if checkpoint:
        task.set_checkpoint(str(checkpoint))
    LocalTrainer().train(task)
    return task, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def phases(lines):
    return [(x["phase"], x["epoch"]) for x in lines if x["kind"] == "phase"]


def timeless(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


ALL = [(phase, epoch) for epoch in (1, 2, 3) for phase in ("train", "test")]


def test_a_line_a_phase(tmp_path):
    task, lines = trained(tmp_path / "new folder")
    assert phases(lines) == ALL
    assert [x["phase_idx"] for x in lines if x["kind"] == "note"] == list(range(6))
    lines = [x for x in lines if x["kind"] == "phase"]
    keys = ["kind", "phase", "epoch", "loss", "meters", "options", "seconds"]
    assert all(list(line) == keys for line in lines)
    # lr steps down in the middle of the run. BatchNorm has no decay; the largest value counts.
    assert [x["options"].get("lr") for x in lines] == [0.05, None, 0.05, None, 0.005, None]
    assert lines[0]["options"]["momentum"] == 0.9
    assert lines[1]["options"] == {}
    assert lines[-1]["loss"] == pytest.approx(sum(task.losses) / len(task.losses))
    assert lines[-1]["meters"] == {"accuracy": task.meters[0].value}
    assert all(0 < line["seconds"] < 60 for line in lines)


def test_a_phase_trained_again_after_a_kill_has_one_line(tmp_path):
    _, whole = trained(tmp_path / "run")
    checkpoints, log = tmp_path / "run" / "checkpoints", tmp_path / "run" / "log.jsonl"
    # Killed in the last phase, with a checkpoint of the second epoch's training.
    with log.open("a") as file:
        file.write('{"kind": "pha')
    _, lines = trained(tmp_path / "run", checkpoints / "model_phase-2_end.torch")
    assert timeless(lines) == timeless(whole)
    # Resumed into another folder, twice; nothing newer was saved there.
    shutil.copy(checkpoints / "model_phase-2_end.torch", tmp_path)
    for _ in range(2):
        _, lines = trained(tmp_path / "other", tmp_path / "model_phase-2_end.torch")
        assert phases(lines) == ALL[3:]


@pytest.mark.parametrize(
    "line", ["null", "123", '"text"', "[]", "{}", '{"kind": "phase", "epoch": "x"}', "[" * 10_000]
)
def test_a_line_that_is_no_record_goes_as_a_run_resumes(tmp_path, line):
    trained(tmp_path, epochs=1)
    (tmp_path / "log.jsonl").write_text(f"{line}\n" * 3)
    _, lines = trained(tmp_path, tmp_path / "checkpoints" / "model_phase-0_end.torch", epochs=2)
    assert phases(lines) == [("test", 1), ("train", 2), ("test", 2)]
    assert {line["kind"] for line in lines} == {"phase", "note"}


def test_a_run_from_the_beginning_starts_anew_and_a_test_only_run_appends(tmp_path):
    trained(tmp_path, epochs=1)
    _, lines = trained(tmp_path, epochs=1)
    assert phases(lines) == ALL[:2]
    _, lines = trained(tmp_path, epochs=1, test_only=True)
    assert phases(lines) == [*ALL[:2], ("test", 0)]


def test_lines_of_other_kinds_are_valid_json(tmp_path):
    hook = build_hook({"name": "json_log", "folder": str(tmp_path)})
    nan = float("nan")
    hook.on_start(SimpleNamespace(test_only=True))
    fields = {"norm": torch.tensor(0.5), "where": [nan, -float("inf")], "of": {1: nan, "b": None}}
    write_line(SimpleNamespace(hooks=[hook]), "spike", **fields)
    line = (tmp_path / "log.jsonl").read_text()
    expected = {"kind": "spike", "norm": 0.5, "where": [None, None], "of": {"1": None, "b": None}}
    assert json.loads(line, parse_constant=pytest.fail) == expected
