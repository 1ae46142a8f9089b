import json
import re

import pytest

from classy_gc.commands import main
from tests.commands.training import digits


def test_training(tmp_path, capsys):
    config = digits()  # three steps an epoch, so that epochs end in between
    # The config's own schedule must not decide which steps run with GC.
    config["optimizer"]["param_schedulers"]["use_gc"] = {"name": "constant", "value": 0}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    flags = ["--config_file", str(file), "--output_folder", str(tmp_path / "out")]
    assert main(["bench", *flags, "--steps", "3", "--warmup", "6"]) == 0
    training = json.loads((tmp_path / "out" / "bench.json").read_text())
    ms, rest = training["optimizer_ms"], training["other_ms"]
    assert min(*ms.values(), rest) > 0
    for gc in ("off", "on"):
        share = ms[gc] / (rest + ms[gc])
        assert training["optimizer_share"][gc] == pytest.approx(share)
    cost = (ms["on"] - ms["off"]) / (rest + ms["on"])
    assert training["gc_share"] == pytest.approx(cost)
    out = capsys.readouterr().out
    assert f"GC costs {cost:.2%} of a training step" in out
    for gc in ("off", "on"):
        assert re.search(rf"GC {gc} +{ms[gc]:.3f} +{rest + ms[gc]:.3f} ", out)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimizer": {"name": "sgd"}}, "needs an optimizer with GC, not 'sgd'"),
        ({"test_only": True}, "test_only is true"),
    ],
)
def test_configs_without_gc_to_measure(tmp_path, capsys, change, expected):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(digits(**change)))
    with pytest.raises(SystemExit):
        main(["bench", "--config_file", str(file)])
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
