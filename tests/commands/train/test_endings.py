"""What a run says when it cannot go on: one line, or the traceback of a bug."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.commands.training import CONFIGS, checkpoint, flat, forked, short, train


def test_a_bug_is_one_line_too_and_debug_shows_its_traceback(here, capsys, monkeypatch):
    from classy_gc.dataset import DigitsDataset

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Classy Vision's is a debugger
    monkeypatch.setattr(DigitsDataset, "from_config", lambda config: config.no_such_attribute)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        train(short(), "--debug")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(short())
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        "error: config.json: dataset.train: AttributeError: .* 'no_such_attribute'", line
    )


def test_what_fails_in_training_keeps_its_traceback(here, monkeypatch):
    from classy_gc.hooks import TrainingCurvesHook

    monkeypatch.setattr(TrainingCurvesHook, "on_step", lambda hook, task: task.no_such_attribute)
    with pytest.raises(AttributeError):
        train(short(), "--skip_tensorboard")


def test_a_loss_that_is_no_longer_finite_is_one_line(here, capsys):
    """SGD with these rates diverges after the first epoch, and its checkpoint is there."""
    lr = {"name": "step", "values": [0.01, 1e30, 1e30]}
    config = short(epochs=3)
    config["optimizer"]["param_schedulers"] = {"lr": lr}
    for folder, values, message in (
        (
            "run",
            [0.01, 1e30, 1e30],
            "step 5 (epoch 2), the last lr was 1e+30; the last checkpoint is ",
        ),
        ("none", [1e30, 1e30, 1e30], "step 2 (epoch 1), the last lr was 1e+30; no checkpoint yet"),
    ):
        lr["values"] = values
        with pytest.raises(SystemExit) as exit_:
            train(config, "--skip_tensorboard", "--output_folder", folder)
        assert exit_.value.code == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
        assert f"error: Loss is infinity or NaN: nan, at {message}" in line
        if folder == "run":
            assert line.endswith(str(here / "run/checkpoints/checkpoint.torch"))
            assert checkpoint("run/checkpoints")["train_phase_idx"] == 0


@pytest.mark.parametrize("file", ["checkpoint.torch", "log.jsonl"])
def test_a_full_disk_is_one_line_and_old_checkpoints_stay_whole(here, file):
    """A limit on file sizes stands for a full disk: a write raises OSError for both."""
    assert train(short(epochs=9), "--output_folder", "run", "--skip_tensorboard") == 0
    saved = Path("run/checkpoints")
    size = Path("run/log.jsonl").stat().st_size + 100 if file == "log.jsonl" else 50_000
    old = {path.name: path.read_bytes() for path in saved.iterdir()}
    Path("config.json").write_text(json.dumps(short(epochs=12)))
    flags = ("--output_folder", "run", "--checkpoint_load_path", saved, "--skip_tensorboard")
    result = forked(*flags, cwd=here, file_size=size)
    assert result.returncode == 1
    (line,) = [x for x in result.stderr.splitlines() if "error" in x.lower()]
    start = "classy-gc train: error: File too large; the last checkpoint is"
    assert line.startswith(f"{start} {saved}")
    assert "Traceback" not in result.stderr
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == old


def test_a_full_disk_is_one_line_of_any_command(here):
    config = json.loads((CONFIGS / "digits_paramwise_adamw_gc.json").read_text())
    Path("config.json").write_text(json.dumps(config))
    result = forked(cwd=here, command="param-groups", stdout="/dev/full")
    assert (result.returncode, result.stderr) == (
        *(1, "classy-gc param-groups: error: No space left on device\n"),
    )


def test_an_interrupt_is_one_line_that_says_how_to_go_on(here):
    config = short(epochs=3)
    assert train(config, "--output_folder", "whole", "--skip_tensorboard") == 0
    flags = ("--seed", 0, "--skip_tensorboard")
    # Also where an older run has left a checkpoint, which is not this run's.
    result = forked(*flags, "--output_folder", "whole", cwd=here, interrupt_at=32)
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1] == (
        "classy-gc train: interrupted before the first checkpoint"
    )
    result = forked(*flags, "--checkpoint_folder", "a b", cwd=here, interrupt_at=128)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    text, _, more = result.stderr.splitlines()[-1].partition("add to the command: ")
    assert text == "classy-gc train: interrupted; to continue, "
    flags = (*flags, "--checkpoint_folder", "a b", *shlex.split(more))
    assert train(config, *flags) == 0
    assert len(list(here.glob("output_*"))) == 1
    assert flat(checkpoint("a b")["base_model"]) == flat(
        checkpoint("whole/checkpoints")["base_model"]
    )
    (log,) = here.glob("output_*/log.jsonl")
    assert len(log.read_text().splitlines()) == 6


def test_a_pipe_that_breaks_in_training_keeps_its_traceback(here, monkeypatch):
    from classy_gc.hooks import JSONLogHook

    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(JSONLogHook, "on_phase_end", lambda hook, task: os.write(writer, b"x"))
    with pytest.raises(BrokenPipeError):
        train(short(), "--skip_tensorboard")
    os.close(writer)
