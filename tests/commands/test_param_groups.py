import json
import re
import sys
from pathlib import Path

import pytest
from classy_vision.tasks import build_task

from classy_gc.commands import main
from classy_gc.param_groups import PARAM_GROUP_BUILDER_REGISTRY
from tests import forked

pytestmark = pytest.mark.usefixtures("here")

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "digits_paramwise_adamw_gc.json"
MINE = """
from classy_gc.param_groups import ParamGroupBuilder, register_param_group_builder


@register_param_group_builder("mine")
class Mine(ParamGroupBuilder):
    def options(self, model, parameters, optimizer):
        return [{"lr_mult": 0.25} if p.name == "bias" else {} for p in parameters]
"""


def test_a_row_a_parameter_and_nothing_is_trained(tmp_path):
    argv = ("param-groups", "--config_file", str(DIGITS))
    result = forked.run(forked.command, *argv, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    header, *rows = (re.split("  +", line, maxsplit=4) for line in result.stdout.splitlines())
    assert header == ["parameter", "shape", "module", "group", "options"]
    assert len(rows) == 20
    rows = {name: rest for name, *rest in rows}
    expected = ["10×32", "Linear", "0", "lr cosine from 0.01, weight_decay 0.05, use_gc false"]
    assert rows["_heads.block1-0.default_head.fc.weight"] == expected
    expected = ["16", "BatchNorm2d, norm", "2", "lr cosine from 0.01, weight_decay 0"]
    assert rows["initial_block._module.1.bias"] == expected
    expected = ["16", "BatchNorm2d, norm", "3", "lr 0.5 × cosine from 0.01, weight_decay 0.045"]
    assert rows["blocks.0.block0-0.bn.weight"] == expected


def test_a_builder_from_a_module_in_the_current_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("PYTHONWARNINGS", "")
    Path("my_builders.py").write_text(MINE)
    config = json.loads(DIGITS.read_text())
    config |= {"num_epochs": 1, "use_gpu": False, "custom_imports": ["my_builders"]}
    config["optimizer"]["param_groups"] = {"name": "mine"}
    for dataset in config["dataset"].values():
        dataset["num_samples"] = 96
    Path("config.json").write_text(json.dumps(config))
    try:
        assert main(["param-groups", "--config_file", "config.json"]) == 0
        assert "lr 0.25 × cosine from 0.01" in capfd.readouterr().out
        assert main(["train", "--config_file", "config.json", "--skip_tensorboard"]) == 0
        assert "lr 0.25 × cosine from 0.01" in capfd.readouterr().err
    finally:
        PARAM_GROUP_BUILDER_REGISTRY.pop("mine", None)
        sys.modules.pop("my_builders", None)


def test_neither_data_nor_gpu_need_be_there(tmp_path, capsys):
    config = json.loads((CONFIGS / "imagenet_vit_b16_adamw_gc.json").read_text())
    config |= {"name": "paramwise_classification_task", "use_gpu": True}
    config["model"] |= {"num_layers": 2, "hidden_dim": 8, "num_heads": 2, "mlp_dim": 8}
    config["model"]["heads"][0]["in_plane"] = 8
    config["optimizer"]["param_groups"] = {"name": "layer_decay", "decay": 0.5}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert main(["param-groups", "--config_file", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("encoder.layers.layer_0.ln_1.weight"))
    assert " lr 0.25 × " in line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "classification_task", "'param_groups' .* 'paramwise_classification_task'"),
        ("param_groups", {"name": "paramwize"}, "'paramwize' in param_groups.* 'paramwise'"),
        (
            "param_groups",
            {"name": "paramwise", "module": "mine"},
            "unknown key 'module' in param_groups 'paramwise'",
        ),
        (
            "param_groups",
            {"name": "paramwise", "custom_keys": {"blokcs": {}}},
            "'blokcs' .*matches no parameter; nearest names: \\['blocks'",
        ),
        (
            "param_groups",
            {"name": "paramwise", "custom_keys": {"blocks": {"momentun": 0.5}}},
            "'momentun' in options of 'blocks.*'adamw_gc'.* mean 'momentum'",
        ),
    ],
)
@pytest.mark.parametrize("name", ["param-groups", "train"])
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, name, key, value, message):

    config = json.loads(DIGITS.read_text()) | {"use_gpu": False}
    section = config if key == "name" else config["optimizer"]
    section[key] = value
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as exit_:
        main([name, "--config_file", "config.json"])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"classy-gc {name}: error: ")
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def table(capsys, config):
    """{name: [shape, module, group, options]}"""
    Path("config.json").write_text(json.dumps(config))
    assert main(["param-groups", "--config_file", "config.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["parameter", "shape", "module", "group", "options"]
    return {name: rest for name, *rest in (re.split("  +", x, maxsplit=4) for x in lines[1:])}


@pytest.mark.parametrize("optimizer", ["sgd_gc", "sgd", "gc", "zero"])
@pytest.mark.parametrize("bn_weight_decay", [False, True])
def test_without_param_groups_they_are_the_tasks(here, capsys, optimizer, bn_weight_decay):
    config = json.loads((CONFIGS / "digits_sgd_gc.json").read_text())
    schedules = config["optimizer"]["param_schedulers"]
    base = {"lr": 0.5, "weight_decay": 0.125}
    config["optimizer"] = {
        "sgd_gc": {"name": "sgd_gc", **base},
        "sgd": {"name": "sgd", **base},
        "gc": {"name": "gc", "base_optimizer": {"name": "sgd", **base}},
        "zero": {"name": "zero", "base_optimizer": {"name": "sgd", **base}},
    }[optimizer] | {"param_schedulers": {"lr": schedules["lr"]}}
    config["bn_weight_decay"] = bn_weight_decay
    rows = table(capsys, config)
    assert len(rows) == 20
    norms = {name for name, row in rows.items() if row[1] == "BatchNorm2d, norm"}
    assert len(norms) == 12
    for name, (_, _, group, options) in rows.items():
        decays = name not in norms or bn_weight_decay
        assert group == ("1" if name in norms else "0")
        assert options == f"lr step from 0.05, weight_decay {0.125 if decays else 0}"
    task = build_task(config)
    task.set_use_gpu(False)
    if optimizer != "zero":  # which needs a process group
        task.prepare()
        named = {id(p): name for name, p in task.base_model.named_parameters()}
        for i, group in enumerate(task.optimizer.param_groups):
            assert {named[id(p)] for p in group["params"]} == {
                name for name, row in rows.items() if row[2] == str(i)
            }


@pytest.mark.parametrize("paramwise", ["", "paramwise_"])
def test_what_fine_tuning_does_not_train(here, capsys, paramwise):
    path = CONFIGS / "digits_paramwise_fine_tuning_sgd_gc.json"
    config = json.loads(path.read_text()) | {"name": f"{paramwise}fine_tuning"}
    del config["optimizer"]["param_groups"]
    config["freeze_trunk"] = True
    rows = table(capsys, config)
    trained = {name for name, row in rows.items() if row[-1] != "frozen"}
    assert trained == {f"_heads.block1-0.default_head.fc.{x}" for x in ("weight", "bias")}


def test_kinds_of_modules(here, capsys):
    config = json.loads((CONFIGS / "imagenet_vit_b16_adamw_gc.json").read_text())
    config["model"] |= {"num_layers": 1, "hidden_dim": 8, "num_heads": 2, "mlp_dim": 8}
    config["model"]["heads"][0]["in_plane"] = 8
    kinds = {name: row[1] for name, row in table(capsys, config).items()}
    assert kinds["encoder.ln.weight"] == "LayerNorm, norm"
    assert kinds["conv_proj.weight"] == "Conv2d"
    assert kinds["class_token"] == "VisionTransformer"
