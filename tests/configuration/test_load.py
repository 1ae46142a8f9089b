"""What a config file may hold besides keys that somebody reads."""

import json
from pathlib import Path

import pytest
from classy_vision.optim import build_optimizer
from classy_vision.tasks import build_task

from classy_gc.commands import main
from classy_gc.configuration.load import load_config
from classy_gc.optim import SGDGC
from classy_gc.options import without_comments
from classy_gc.param_groups import build_param_group_builder

DIGITS = Path(__file__).parents[2] / "configs/digits_sgd_gc.json"


def commented(config):
    """The config with comments in each of its objects, wherever they may stand."""
    if isinstance(config, list):
        return [commented(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {
        "_": [1, {"lr": 2}],
        **{k: commented(v) for k, v in config.items()},
        "_comment": "words",
    }


@pytest.mark.parametrize("path", sorted(DIGITS.parent.glob("digits_*.json")), ids=lambda p: p.stem)
def test_comments_are_left_out_at_every_level(tmp_path, path):
    config = json.loads(path.read_text())
    (tmp_path / "config.json").write_text(json.dumps(commented(config)))
    assert load_config(tmp_path / "config.json") == load_config(path) == config


def test_a_part_of_a_name_is_no_comment():
    keys = {"_heads": {"lr_mult": 2, "_why": "new"}, "_why": "they are new"}
    wanted = {"custom_keys": {"_heads": {"lr_mult": 2}}}
    assert without_comments({"custom_keys": keys, "_a": 1}) == wanted


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"use_gc": true,', '"use_gc": true, "use_gc": false,', "'use_gc' is there twice, as True"),
        ("{", '{"num_epochs": 3, ', "'num_epochs' is there twice, as 3 and as 20"),
    ],
)
def test_a_key_twice_is_refused_in_one_line(here, capsys, old, new, message):
    text = DIGITS.read_text()
    assert old in text
    Path("config.json").write_text(text.replace(old, new, 1))
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--config_file", "config.json"])
    assert exit_.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith(f"classy-gc train: error: config.json: key {message}")
    assert [path.name for path in here.iterdir()] == ["config.json"]


def test_a_comment_may_be_there_twice(here):
    Path("config.json").write_text(DIGITS.read_text().replace("{", '{"_": 1, "_": 2, ', 1))
    assert load_config("config.json") == load_config(DIGITS)


def test_tasks_and_optimizers_leave_comments_out_too():
    config = json.loads(DIGITS.read_text()) | {"name": "paramwise_classification_task"}
    config = commented(config)
    before = json.dumps(config)
    task = build_task(config)
    assert json.dumps(config) == before
    assert set(task.optimizer_schedulers) == {"lr", "momentum"}
    assert isinstance(build_optimizer(config["optimizer"]), SGDGC)
    keys = {"_heads": {"lr_mult": 2, "_why": "new"}, "_why": "new"}
    builder = build_param_group_builder({"name": "paramwise", "_": 1, "custom_keys": keys})
    assert builder.custom_keys == {"_heads": {"lr_mult": 2}}
