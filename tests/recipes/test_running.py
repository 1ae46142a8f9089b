"""Each recipe does what the guide says when it is run as it is."""

import json
import sys
from pathlib import Path

import pytest
import torch

from classy_gc.commands import main
from classy_gc.configuration.load import read_config
from tests.forked import code, start

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"


def train(recipe, *flags):
    """Trains a recipe into ``run`` and returns the lines of its log."""
    path = RECIPES / f"{recipe}.json"
    flags = ("--output_folder", "run", "--skip_tensorboard", *map(str, flags))
    assert main(["train", "--config_file", str(path), *flags]) == 0
    return log("run")


def log(folder):
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def phases(lines):
    return ", ".join(f"{line['phase']} {line['epoch']:g}" for line in lines)


HERE = """
import sys
sys.dont_write_bytecode = True
from classy_gc.commands import main
from classy_gc.configuration.load import read_config
flags = ["--config_file", "custom_imports.json", "--output_folder", sys.argv[1]]
sys.exit(main(["train", *flags]))
"""


def test_custom_imports(tmp_path):
    output = (tmp_path / "stdout", tmp_path / "stderr")
    process = start(code, HERE, str(tmp_path / "run"), cwd=RECIPES, output=output)
    process.join(120)
    assert process.exitcode == 0, output[1].read_text()
    lines = log(tmp_path / "run")
    assert phases(lines) == "train 1, test 1, train 2, test 2"
    assert lines[-1]["meters"]["accuracy"]["top_1"] > 0.5


WORKFLOWS = {
    "workflow_train_n_test_1": "train 1, train 2, test 2, train 3, train 4, test 4",
    "workflow_train_only": "train 1, train 2",
    # The last epoch is tested, whatever the interval.
    "evaluation_interval": "train 1, train 2, train 3, test 3, train 4, test 4",
    "evaluation_at_the_end": "train 1, train 2, train 3, test 3",
}


@pytest.mark.parametrize(("recipe", "expected"), WORKFLOWS.items(), ids=WORKFLOWS)
def test_phases(here, capsys, recipe, expected):
    lines = train(recipe)
    assert phases(lines) == expected
    assert lines[-1]["meters"]["accuracy"]["top_1"] > 0.9
    summary = capsys.readouterr().out
    assert summary.startswith("Trained in")
    assert ("\n  test " in summary) == ("test" in expected)


def test_test_only(here, capsys):
    trained = train("checkpoints")
    capsys.readouterr()
    config = read_config(RECIPES / "workflow_test_only.json")
    # One key makes a training config a test-only one; it is tested once.
    Path("20.json").write_text(json.dumps(config | {"num_epochs": 20}))
    for file in (RECIPES / "workflow_test_only.json", "20.json"):
        flags = ("--checkpoint_load_path", "run/checkpoints", "--output_folder", "tested")
        assert main(["train", "--config_file", str(file), *flags]) == 0
        *_, line = log("tested")
        assert {k: v for k, v in line.items() if k != "seconds"} == {
            k: v for k, v in trained[-1].items() if k != "seconds"
        }
        summary, text = capsys.readouterr()
        assert summary.startswith("Tested in")
        assert "checkpoint" not in summary
        assert "weights that the model starts with" not in text
    assert len(log("tested")) == 2
    assert not Path("tested/checkpoints").exists()


def test_test_only_without_a_checkpoint_says_so(here, capsys):
    (line,) = train("workflow_test_only")
    assert phases([line]) == "test 0"
    assert capsys.readouterr().err.count("tests the initial weights") == 1


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_checkpoints(here, capsys):
    lines = train("checkpoints")
    saved = ["model_phase-4_end.torch", "model_phase-6_end.torch"]
    assert names("run/checkpoints") == ["best.torch", "checkpoint.torch", *saved]
    best = torch.load("run/checkpoints/best.torch")["classy_state_dict"]
    tests = [line for line in lines if line["phase"] == "test"]
    value = best["hooks"]["RollingCheckpointHook"]["best"]["accuracy/top_1"]
    assert value == max(line["meters"]["accuracy"]["top_1"] for line in tests)
    first = next(x for x in tests if x["meters"]["accuracy"]["top_1"] == value)
    assert best["train_phase_idx"] + 1 == first["epoch"]


def test_checkpoints_weights_only(here, capsys):
    train("checkpoints_weights_only")
    assert names("run/checkpoints") == ["checkpoint.torch", "model_phase-2_end.torch"]
    flags = ("--checkpoint_load_path", "run/checkpoints")
    with pytest.raises(SystemExit):
        train("checkpoints_weights_only", *flags)
    message = "'optim': it is of another optimizer, or was saved without its state"
    assert message in capsys.readouterr().err
    (line,) = train("workflow_test_only", *flags, "--output_folder", "tested") and log("tested")
    assert line["meters"]["accuracy"]["top_1"] > 0.9


def test_logs(here_with_curves, capsys):
    path = RECIPES / "logs.json"
    assert main(["train", "--config_file", str(path), "--skip_tensorboard"]) == 0
    assert names("digits_logs") == ["curves.png", "log.jsonl"]
    assert phases(log("digits_logs")) == "train 1, test 1, train 2, test 2"
    text = capsys.readouterr().err
    # An epoch has 45 steps.
    assert text.count("Approximate meters: [0] train phase 1") == 3
    assert text.count("Synced meters: [0] test phase 1") == 1


def test_logs_tensorboard(here):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    flags = ["--config_file", str(RECIPES / "logs_tensorboard.json"), "--output_folder", "run"]
    assert main(["train", *flags]) == 0
    assert not Path("run/tensorboard").exists()
    events = accumulator.EventAccumulator("digits_tensorboard")
    events.Reload()
    losses = [line["loss"] for line in log("run") if line["phase"] == "train"]
    assert [e.value for e in events.Scalars("Losses/train")] == pytest.approx(losses)
    # 45 steps an epoch, of which every fifth counts, the first included.
    assert len(events.Scalars("Learning Rate/train")) == 2 * 9


def test_tensorboard_is_missed_with_one_line(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SystemExit):
        main(["train", "--config_file", str(RECIPES / "logs_tensorboard.json")])
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert "'tensorboard_plot' needs tensorboard: pip install 'classy-gc[tensorboard]'" in line
    assert not list(here.iterdir())


def test_evaluation_meters(here, capsys):
    *_, line = train("evaluation_meters")
    assert {meter: list(values) for meter, values in line["meters"].items()} == {
        "accuracy": ["top_1", "top_3"],
        "precision_at_k": ["top_1"],
        "recall_at_k": ["top_1", "top_3"],
    }
    meters = line["meters"]
    assert meters["precision_at_k"]["top_1"] == pytest.approx(meters["accuracy"]["top_1"])
    assert meters["recall_at_k"]["top_3"] == pytest.approx(meters["accuracy"]["top_3"])
