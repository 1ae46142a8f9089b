import json

import pytest
import torch
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

from tests.commands.training import digits


def trained(hooks, tmp_path, use_shuffle=False):
    config = digits(2, 70)
    config["dataset"]["test"]["use_shuffle"] = use_shuffle
    config["hooks"] = [
        {**hook, **({"folder": str(tmp_path)} if "log" in hook["name"] else {})} for hook in hooks
    ]
    task = build_task(config)
    LocalTrainer().train(task)
    return task


def lines(tmp_path):
    records = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == "predictions"]


@pytest.mark.parametrize(("order", "use_shuffle"), [(1, False), (-1, True)])
def test_the_line_says_which_samples_the_last_test_got_right(order, use_shuffle, tmp_path):
    hooks = [{"name": "json_log"}, {"name": "predictions"}][::order]
    task = trained(hooks, tmp_path, use_shuffle=use_shuffle)
    (line,) = lines(tmp_path)
    dataset = task.datasets["test"]
    task.base_model.eval()
    with torch.no_grad():
        scores = task.base_model(torch.stack([dataset[i]["input"] for i in range(70)]))
    right = scores.argmax(1) == torch.tensor([dataset[i]["target"] for i in range(70)])
    assert line["correct"] == "".join(str(int(x)) for x in right)
    assert 0 < right.sum() < 70


def test_without_a_log_nothing_is_written(tmp_path):
    trained([{"name": "predictions"}], tmp_path)
    assert not list(tmp_path.iterdir())
