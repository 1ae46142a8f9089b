import importlib
import json
import sys
from pathlib import Path

import pytest
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer
from classy_vision.tasks import build_task

from classy_gc import param_groups
from classy_gc.commands import main
from classy_gc.configuration.load import load_config, read_config

RECIPE = Path(__file__).parents[1] / "configs" / "recipes" / "custom_imports.json"
MODULE = """
from classy_vision.optim import register_optimizer
from classy_gc.optim import SGDGC

@register_optimizer("{name}")
class {name}(SGDGC):
    pass
"""


@pytest.fixture
def config(tmp_path, monkeypatch, request):
    """An optimizer that a module in the current folder registers, with a new name in each test."""
    name = "Own" + "".join(filter(str.isalnum, request.node.name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    Path(f"{name}.py").write_text(MODULE.format(name=name))
    importlib.invalidate_caches()
    return read_config(RECIPE) | {
        "name": "paramwise_classification_task",
        "custom_imports": [name],
        "optimizer": {"name": name, "lr": 0.1},
        "use_gpu": False,
    }


def test_build_task_imports(config):
    task = build_task(config)
    assert type(task.optimizer) is OPTIMIZER_REGISTRY[config["optimizer"]["name"]]


def test_a_param_group_builder_is_imported_before_it_is_built(config, monkeypatch):
    registry = dict(param_groups.PARAM_GROUP_BUILDER_REGISTRY)
    monkeypatch.setattr(param_groups, "PARAM_GROUP_BUILDER_REGISTRY", registry)
    name = config["optimizer"]["name"] + "Builder"
    Path(f"{name}.py").write_text(f"""
from classy_gc.param_groups import ParamGroupBuilder, register_param_group_builder

@register_param_group_builder("{name}")
class Builder(ParamGroupBuilder):
    def options(self, model, parameters, optimizer):
        return [dict(lr_mult=0.5) for _ in parameters]
""")
    importlib.invalidate_caches()
    optimizer = {"name": "sgd_gc", "lr": 0.1, "param_groups": {"name": name}}
    config["custom_imports"] = [name]
    task = build_task({**config, "optimizer": optimizer})
    task.prepare()
    assert task.optimizer.optimizer.param_groups[0]["lr"] == 0.05


def test_those_of_set_are_imported(config):
    modules = config.pop("custom_imports")
    optimizer, config["optimizer"] = config["optimizer"], {"name": "sgd_gc", "lr": 0.1}
    Path("config.json").write_text(json.dumps(config))
    settings = [("custom_imports", modules), ("optimizer", optimizer)]
    assert load_config("config.json", settings)["optimizer"] == optimizer
    with pytest.raises(ValueError, match=r"^--set custom_imports.*'jason' cannot be imported"):
        load_config("config.json", [("custom_imports", ["jason"])])


def test_every_command_imports(config):
    Path("config.json").write_text(json.dumps(config))
    for _ in range(2):
        assert load_config("config.json") == config
    assert config["optimizer"]["name"] in OPTIMIZER_REGISTRY


def test_modules_beside_the_config_are_found(config, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    module = "module_of_a_path"
    Path("..", f"{module}.py").write_text("import torch\nclass Own(torch.optim.SGD):\n    pass\n")
    importlib.invalidate_caches()
    path = {"name": "torch_gc", "optimizer": f"{module}.Own", "lr": 0.1}
    (tmp_path / "base.json").write_text(json.dumps(config))
    Path("config.json").write_text('{"_base_": "../base.json"}')
    load_config("config.json")
    assert config["optimizer"]["name"] in OPTIMIZER_REGISTRY
    assert build_optimizer(path).core_class.__module__ == module


BAD = {
    "a name alone": ("my_package", "must be a list of module names, not 'my_package'"),
    "no strings": (["json", 1], r"must be a list of module names, not \['json', 1\]"),
    "an empty name": ([""], r"must be a list of module names, not \[''\]"),
    "nowhere": (["json", "no.where"], "'no.where' cannot be imported: .*'no'"),
    "raises": (["raises"], "'raises' cannot be imported: ZeroDivisionError: "),
    "exits": (["exits"], "'exits' cannot be imported: SystemExit: 3"),
}


@pytest.mark.parametrize(("modules", "message"), BAD.values(), ids=BAD)
def test_bad_modules_stop_the_run_with_one_line(config, capsys, modules, message):
    Path("raises.py").write_text("1 / 0")
    Path("exits.py").write_text("raise SystemExit(3)")
    Path("config.json").write_text(json.dumps(config | {"custom_imports": modules}))
    before = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--config_file", "config.json"])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("classy-gc train: error: config.json: custom_imports")
    with pytest.raises(ValueError, match=message) as error:
        build_task(config | {"custom_imports": modules})
    assert str(error.value) in line
    after = sorted(path.name for path in Path().iterdir() if path.name != "__pycache__")
    assert after == before
