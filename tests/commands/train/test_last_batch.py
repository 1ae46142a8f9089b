import json
from pathlib import Path

import pytest

from classy_gc.commands import main

DIGITS = json.loads((Path(__file__).parents[3] / "configs/digits_sgd_gc.json").read_text())
MLP = {"name": "mlp", "input_dim": 192, "output_dim": 10, "hidden_dims": [4]}


@pytest.mark.parametrize(
    ("samples", "drop_last", "model", "warned"),
    [
        (67, False, None, True),
        (68, False, None, False),  # an eighth of 32
        (64, False, None, False),
        (67, True, None, False),
        (67, False, {**MLP, "use_batchnorm": True}, True),
        (67, False, MLP, False),
    ],
)
def test_a_last_batch_that_is_too_small_is_told_once(
    samples, drop_last, model, warned, here, capfd
):
    config = {**DIGITS, "num_epochs": 2}
    config["model"] = model or config["model"]
    train = {**config["dataset"]["train"], "num_samples": samples, "drop_last": drop_last}
    config["dataset"] = {"train": train, "test": {**config["dataset"]["test"], "num_samples": 8}}
    Path("config.json").write_text(json.dumps(config))
    assert main(["train", "--config_file", "config.json", "--output_folder", "out"]) == 0
    text = 'each epoch ends with a batch of 3, not 32: too few for batch normalization; set "drop'
    assert capfd.readouterr().err.count(text) == warned
