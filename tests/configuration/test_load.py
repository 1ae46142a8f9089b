"""What a config file may hold besides the keys that are read."""

import json
from pathlib import Path

import pytest
from classy_vision.models import MODEL_REGISTRY, ClassyModel
from classy_vision.optim import build_optimizer
from classy_vision.tasks import build_task

from classy_gc.commands import main
from classy_gc.configuration.load import load_config, read_config
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


def write(**files):
    for name, config in files.items():
        Path(f"{name}.json").write_text(config if isinstance(config, str) else json.dumps(config))


def test_objects_merge_and_all_else_replaces(here):
    write(
        first={"a": {"x": 1, "y": [1, 2]}, "b": 1},
        second={"a": {"y": {"z": 3}}, "b": {"c": 2}},
        mine={"_base_": ["first.json", "second.json"], "a": {"x": 5, "w": None}, "d": []},
    )
    merged = read_config("mine.json")
    assert merged == {"a": {"x": 5, "y": {"z": 3}, "w": None}, "b": {"c": 2}, "d": []}
    origins = {("a", "x"): "mine.json", ("a", "y", "z"): "second.json", ("b", "c"): "second.json"}
    assert {path: merged.origin(*path) for path in origins} == origins
    assert merged.origin("a") == "second.json and mine.json"
    assert merged.origin() == merged.origin("nowhere") == "second.json and mine.json"


def test_bases_lie_beside_the_file_that_names_them_or_ship_with_the_package(here):
    (here / "parts").mkdir()
    write(
        **{"parts/lr": {"_base_": "more.json", "optimizer": {"lr": 0.2}}},
        **{"parts/more": {"_base_": "recipes/logs.json", "num_epochs": 7}},
        mine={"_base_": "parts/lr.json"},
    )
    merged, shipped = read_config("mine.json"), read_config(DIGITS.parent / "recipes/logs.json")
    assert merged["num_epochs"] == 7
    assert merged["optimizer"]["lr"] == 0.2
    assert merged["hooks"] == shipped["hooks"]
    assert merged.origin("num_epochs") == "more.json"


def test_delete_replaces_what_the_bases_have(here):
    write(
        base={"optimizer": {"name": "sgd_gc", "nesterov": True}, "hooks": [1]},
        mine={"_base_": "base.json", "optimizer": {"_delete_": True, "name": "adam_gc"}},
        same={"_base_": "base.json", "optimizer": {"_delete_": False, "name": "adam_gc"}},
        alone={"_base_": "base.json", "_delete_": True, "hooks": [2]},
    )
    assert read_config("mine.json") == {"optimizer": {"name": "adam_gc"}, "hooks": [1]}
    assert read_config("mine.json").origin("optimizer") == "mine.json"
    assert read_config("same.json")["optimizer"] == {"name": "adam_gc", "nesterov": True}
    assert read_config("alone.json") == {"hooks": [2]}


DEEP = 2000
NESTED = json.dumps([0])[:-1].replace("0", "") * 60 + "0" + "]" * 60


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ({"_base_": "mine.json"}, "mine.json → mine.json: a circle of _base_"),
        ({"_base_": "circle.json"}, "mine.json → circle.json → mine.json: a circle of _base_"),
        ({"_base_": "no.json"}, "mine.json → no.json: No such file or directory"),
        ({"_base_": ["digits_sgd_gc.json", 1]}, "mine.json: _base_ must be a file or a list .* 1$"),
        ({"_base_": ""}, "mine.json: _base_ must be a file or a list of files, not ''"),
        ({"_base_": "list.json"}, r"mine.json → list.json: the config must be an object .* \[1\]"),
        ({"_base_": "bad.json"}, "mine.json → bad.json: Expecting property name .* line 1"),
        ({"_base_": "twice.json"}, "mine.json → twice.json: key 'a' occurs twice, as 1 and as 2"),
        ({"a": {"_delete_": True}}, "mine.json: a._delete_: there is nothing to delete"),
        (
            {"_base_": "deletes.json"},
            "mine.json → deletes.json: a.b._delete_: there is nothing to delete",
        ),
        ({"a": {"_delete_": 1}}, "mine.json: a._delete_ must be true, not 1"),
        ({"a": {"_base_": "b.json"}}, "_base_ is resolved only at the top of a file"),
        ({"a": [{"_delete_": True}]}, "_delete_ is resolved only at the top of a file"),
        ('{"_base_": "a", "_base_": "b"}', "mine.json: key '_base_' occurs twice"),
        ("[" * DEEP + "]" * DEEP, "mine.json: (maximum recursion|.* more than 50 levels)"),
        (
            '{"a": ' * DEEP + "1" + "}" * DEEP,
            "mine.json: (maximum recursion|.* more than 50 levels)",
        ),
        ('{"a": {"b": ' + NESTED + "}}", "mine.json: a.b.* is nested more than 50 levels deep"),
        (
            '{"a": {"b": [1, ' + "9" * 400 + "]}}",
            r"mine.json: a.b\[1\] must be a number in a float's",
        ),
        ('{"a": {"b": [1, ' + "9" * 5000 + "]}}", "mine.json: Exceeds the limit .4300"),
        ({"_base_": "large.json"}, "mine.json → large.json: a must be a number in a float"),
    ],
)
def test_bad_files_are_one_line_with_their_chain(here, mine, message):
    write(
        circle={"_base_": "mine.json"},
        list=[1],
        bad="{'a': 1}",
        twice='{"a": 1, "a": 2}',
        deletes={"a": {"b": {"_delete_": True}}},
        large='{"a": 1e400}',
        mine=mine,
    )
    with pytest.raises(ValueError, match=message) as error:
        read_config("mine.json")
    assert len(str(error.value)) < 300


def test_no_file_and_a_byte_order_mark(here):
    with pytest.raises(ValueError, match="a config must be a file, not ''"):
        read_config("")
    Path("mine.json").write_bytes(b"\xef\xbb\xbf" + DIGITS.read_bytes())
    assert load_config("mine.json") == load_config(DIGITS)


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ({"num_epochs": "x"}, "^mine.json: num_epochs must be a number > 0, not 'x'"),
        (
            {"num_epoch": 3, "test_phase_period": 1},
            "^mine.json: unknown key 'num_epoch' in the config",
        ),
        ({"clip_grad_norm": 1}, "^base.json: test_phase_period must be an integer > 0, not 0"),
        ({"test_phase_period": 1, "model": {"heads": 1}}, "^mine.json: model.heads must be a list"),
    ],
)
def test_an_error_names_the_file_that_the_value_came_from(here, mine, message):
    write(
        base={"_base_": "digits_sgd_gc.json", "test_phase_period": 0},
        mine={"_base_": "base.json", **mine},
    )
    with pytest.raises(ValueError, match=message):
        load_config("mine.json")


def test_heads_of_a_model_of_ones_own_are_a_list(here, monkeypatch):
    monkeypatch.setitem(MODEL_REGISTRY, "own", type("Own", (ClassyModel,), {}))
    write(mine={"_base_": "digits_sgd_gc.json", "model": {"name": "own", "heads": None}})
    with pytest.raises(ValueError, match=r"^mine.json: model.heads must be a list, not None"):
        load_config("mine.json")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("optimizr.lr", 1), "^--set optimizr.lr=1: unknown key 'optimizr' in .* 'optimizer'"),
        (("mixup.alpha", 1), "^--set mixup.alpha=1: .* a new section is set as JSON: mixup={…}$"),
        (("num_epochs.x", 1), "^--set num_epochs.x=1: num_epochs is 20, so it has no key 'x'"),
        (("model.heads.1.num_classes", 1), "unknown index '1' in model.heads; known: 0"),
        (("num_epochs", -1), "^--set num_epochs=-1: num_epochs must be a number > 0, not -1"),
        (
            ("optimizer.lr", 0.2),
            r"lr does nothing: the schedule optimizer\.param_schedulers\.lr drives it; "
            "set one of its keys: name, values$",
        ),
        (("model.name", "resnett"), "^--set model.name=resnett: unknown name 'resnett' in model"),
    ],
)
def test_settings_that_lead_nowhere(here, setting, message):
    write(mine={"_base_": "digits_sgd_gc.json"})
    with pytest.raises(ValueError, match=message):
        load_config("mine.json", [setting])


def test_settings_change_single_values():
    settings = [("optimizer.gc_loc", True), ("optimizer.weight_decay", 0.0)]
    settings.append(("model.heads.0.num_classes", 3))
    config = load_config(DIGITS, [*settings, ("meters.accuracy.topk", [1])])
    assert (config["optimizer"]["gc_loc"], config["optimizer"]["weight_decay"]) == (True, 0.0)
    assert config["model"]["heads"][0]["num_classes"] == 3
    assert config.origin("optimizer", "gc_loc") == "--set optimizer.gc_loc=true"


@pytest.mark.parametrize("build", [build_task, lambda config: build_optimizer(config["optimizer"])])
def test_tasks_and_optimizers_refuse_a_config_that_is_not_merged(build):
    config = json.loads(DIGITS.read_text()) | {"name": "paramwise_classification_task"}
    for section in (config, config["optimizer"]):
        section["_base_"] = "digits_sgd_gc.json"
    with pytest.raises(ValueError, match=r"_base_ is resolved .* classy-gc configs --flatten FILE"):
        build(config)


def test_the_folder_of_a_run_has_the_whole_config(here):
    write(mine={"_base_": "recipes/clip_grad_norm.json", "num_epochs": 1, "use_gpu": False})
    small = ["--set", "dataset.train.num_samples=64", "--set", "dataset.test.num_samples=32"]
    flags = ["--output_folder", "run", "--skip_tensorboard", *small]
    assert main(["train", "--config_file", "mine.json", *flags]) == 0
    merged = json.loads(Path("run/config.json").read_text())
    assert merged["clip_grad_norm"] == 1.0
    assert merged["dataset"]["train"]["num_samples"] == 64
    assert "_base_" not in merged
    log = Path("run/log.jsonl").read_text()
    # It repeats the training, and the next run into its folder replaces it.
    again = ["--config_file", "run/config.json", "--skip_tensorboard", "--output_folder"]
    assert main(["train", *again, "again"]) == 0
    assert [json.loads(line)["loss"] for line in log.splitlines()] == [
        json.loads(line)["loss"] for line in Path("again/log.jsonl").read_text().splitlines()
    ]
    assert main(["train", *again, "run"]) == 0
    assert json.loads(Path("run/config.json").read_text()) == merged
    Path("again/config.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        main(["train", *again, "again"])
    assert Path("again/config.json").read_text() == "{}"


def test_flatten_prints_the_merged_config(here, capsys):
    assert main(["configs", "--flatten", "recipes/schedule_step.json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_config("recipes/schedule_step.json")
    assert build_task(printed).clip_grad_norm is None
    with pytest.raises(SystemExit, match="2"):
        main(["configs", "--flatten"])
    assert "--flatten needs one NAME" in capsys.readouterr().err


def test_recipes_are_a_base_and_what_they_are_about():
    for path in DIGITS.parent.glob("recipes/*.json"):
        assert len(path.read_text().splitlines()) <= 18, path
        assert json.loads(path.read_text())["_base_"] == DIGITS.name
