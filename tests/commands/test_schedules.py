import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classy_gc.commands import main
from classy_gc.commands.schedules import schedules
from classy_gc.configuration.load import load_config, read_config
from tests import forked

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted((CONFIGS / "recipes").glob("schedule_*.json"))
ONE_CYCLE = CONFIGS / "recipes" / "schedule_one_cycle_sgd.json"


pytestmark = pytest.mark.usefixtures("here")


def draw(*paths, output="all.png"):
    return main(["schedules", "--config_file", *map(str, paths), "--output", output])


@pytest.mark.parametrize(
    ("paths", "size"), [([ONE_CYCLE], (600, 450)), (RECIPES[:2], (1200, 450)), (RECIPES, None)]
)
def test_picture(paths, size, capsys):
    pyplot = "matplotlib.pyplot" in sys.modules
    assert draw(*paths) == 0
    assert capsys.readouterr().out.endswith("\n\nall.png\n")
    with Image.open("all.png") as image:
        assert image.size == (size or (1800, 450 * -(-len(paths) // 3)))
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        blue = (pixels == (0x1F, 0x77, 0xB4)).all(axis=1)
        assert 1000 * len(paths) < blue.sum() < len(blue) / 10  # curves, and much white
    assert ("matplotlib.pyplot" in sys.modules) == pyplot  # nothing global


def test_curves_are_what_is_trained_with():
    epochs, options = schedules(load_config(ONE_CYCLE))
    assert (epochs[0], epochs[500]) == (0, 1)
    ends = {k: [v[0], v[300], v[999], v.max(), v.min()] for k, v in options.items()}
    assert ends["lr"] == pytest.approx([0.004, 0.1, 0, 0.1, 0], abs=2e-6)
    assert ends["momentum"] == pytest.approx([0.95, 0.85, 0.95, 0.95, 0.85], abs=2e-6)


def test_numbers(capsys):
    assert draw(ONE_CYCLE) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[:3] == [
        "schedule_one_cycle_sgd",
        "epoch         lr  momentum",
        "0          0.004      0.95",
    ]
    assert "\n0.6          0.1      0.85\n" in out


def test_a_warm_up_in_steps_is_as_long_as_the_data_make_it():
    rise = {"name": "linear", "start_value": 0.0, "end_value": 1.0}
    parts = [rise, {"name": "constant", "value": 1.0}]
    lr = {"name": "composite", "schedulers": parts, "lengths": ["6 steps", "rest"]}
    config = json.loads((CONFIGS / "digits_sgd_gc.json").read_text()) | {"num_epochs": 2}
    config["dataset"]["train"] |= {"num_samples": 96, "batchsize_per_replica": 16}
    config["optimizer"]["param_schedulers"] = {"lr": lr}
    for changes, rising in (
        ({}, 500),
        ({"simulated_global_batchsize": 32}, 1000),
        ({"name": "fine_tuning", "reset_heads": True}, 500),
        ({"amp_args": {"amp_type": "pytorch"}, "use_gpu": True}, 500),
        ({"test_only": True}, 500),
    ):
        values = schedules(config | changes)[1]["lr"]
        assert values[:rising] == pytest.approx(np.arange(rising) / rising)
        assert (values[rising:] == 1).all()


@pytest.mark.parametrize("phases_per_epoch", [None, 2])
def test_schedules_by_epoch_change_between_phases(phases_per_epoch):
    lr = {"name": "linear", "start_value": 1.0, "end_value": 0.0, "update_interval": "epoch"}
    config = json.loads((CONFIGS / "digits_sgd_gc.json").read_text())
    config |= {"num_epochs": 2}
    config["optimizer"]["param_schedulers"] = {"lr": lr}
    if phases_per_epoch:
        config["dataset"]["train"]["phases_per_epoch"] = phases_per_epoch
    values = schedules(config)[1]["lr"]
    assert sorted(set(values), reverse=True) == (
        [1, 0.75, 0.5, 0.25] if phases_per_epoch else [1, 0.5]
    )


def changed(**optimizer):
    config = read_config(ONE_CYCLE)
    config["optimizer"] = {**config["optimizer"], **optimizer}
    return config


STOPS = {"lr": {"name": "cosine", "start_value": 0.1, "stop_value": 0}}
NEGATIVE = {"lr": {"name": "linear", "start_value": 0.1, "end_value": -1}}


@pytest.mark.parametrize(
    ("config", "fragments"),
    [
        (changed(param_schedulers=STOPS), ["'stop_value'", "param_schedulers.lr"]),
        (changed(param_schedulers=NEGATIVE), ["param_schedulers.lr must be a number >= 0, not -"]),
        (changed(param_schedulers={}), ["param_schedulers in optimizer"]),
        (changed(name="sgd_cg"), ["'sgd_cg'", "did you mean 'sgd_gc'?"]),
    ],
)
def test_a_bad_config_is_one_line_and_no_picture(config, fragments, capsys):
    Path("bad.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as caught:
        draw(ONE_CYCLE, "bad.json")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    for fragment in ["classy-gc schedules: error: bad.json: ", *fragments]:
        assert fragment in line
    assert [path.name for path in Path().iterdir()] == ["bad.json"]


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--config_file", "no.json"], "no.json"),
        (["--config_file", ONE_CYCLE, "--output", "all.pgn"], "pgn"),
        (["--config_file", ONE_CYCLE, "--output", "."], "a .png file, not '.'"),
        (["--config_file", ONE_CYCLE, "--output", "no/all.png"], "no writable folder no"),
        ([], "--config_file"),
    ],
)
def test_bad_flags(flags, fragment, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["schedules", *map(str, flags)])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fragment in line
    assert not list(Path().iterdir())


def test_one_line_without_matplotlib(monkeypatch, capsys):
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        draw(ONE_CYCLE)
    assert "pip install 'classy-gc[examples]'" in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_in_a_process_of_its_own(tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    done = forked.run(forked.command, "schedules", "--config_file", ONE_CYCLE, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["schedules.png"]
