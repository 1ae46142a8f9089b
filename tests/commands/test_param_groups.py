import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from classy_gc.commands import main
from classy_gc.param_groups import PARAM_GROUP_BUILDER_REGISTRY

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = CONFIGS / "digits_paramwise_adamw_gc.json"
MINE = """
from classy_gc.param_groups import ParamGroupBuilder, register_param_group_builder


@register_param_group_builder("mine")
class Mine(ParamGroupBuilder):
    def options(self, model, parameters, optimizer):
        return [{"lr_mult": 0.25} if p.name == "bias" else {} for p in parameters]
"""


def command(*args, cwd, stdout=subprocess.PIPE):
    code = "import sys; from classy_gc.commands import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


def test_a_row_a_parameter_and_nothing_is_trained(tmp_path):
    result = command("param-groups", "--config_file", DIGITS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    header, *rows = (line.split(maxsplit=3) for line in result.stdout.splitlines())
    assert header == ["parameter", "shape", "group", "options"]
    assert len(rows) == 20
    rows = {name: rest for name, *rest in rows}
    expected = ["10×32", "0", "lr cosine from 0.01, weight_decay 0.05, use_gc false"]
    assert rows["_heads.block1-0.default_head.fc.weight"] == expected
    expected = ["16", "2", "lr cosine from 0.01, weight_decay 0"]
    assert rows["initial_block._module.1.bias"] == expected
    expected = ["16", "3", "lr 0.5 × cosine from 0.01, weight_decay 0.045"]
    assert rows["blocks.0.block0-0.bn.weight"] == expected


def test_nobody_reads_on(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    result = command("param-groups", "--config_file", DIGITS, cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_builder_from_a_module_in_the_current_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("PYTHONWARNINGS", "")
    Path("my_builders.py").write_text(MINE)
    config = json.loads(DIGITS.read_text())
    config |= {"num_epochs": 1, "use_gpu": False}
    config["optimizer"]["param_groups"] = {"name": "mine", "module": "my_builders"}
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
        ("param_groups", {"name": "paramwise", "module": "nowhere"}, "No module named 'nowhere'"),
        (
            "param_groups",
            {"name": "paramwise", "custom_keys": {"blokcs": {}}},
            "'blokcs' .*matches no parameter; nearest names: 'blocks'",
        ),
        (
            "param_groups",
            {"name": "paramwise", "custom_keys": {"blocks": {"momentun": 0.5}}},
            "'momentun' in custom_keys 'blocks' .*'adamw_gc'.* mean 'momentum'",
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


def test_a_config_without_param_groups_is_one_line(capsys):
    with pytest.raises(SystemExit):
        main(["param-groups", "--config_file", str(CONFIGS / "digits_sgd_gc.json")])
    assert "missing key 'param_groups' in optimizer" in capsys.readouterr().err
