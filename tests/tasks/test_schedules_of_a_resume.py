"""A run resumed with other schedules has their values from its first step on."""

import json

import pytest

from tests.commands.training import short, train

PARAM_GROUPS = {"param_groups": {"name": "paramwise", "bias_lr_mult": 2}}
CASES = {
    "stock task": ("classification_task", {"name": "sgd", "lr": 0.1}),
    "stock task, sgd_gc": ("classification_task", {"name": "sgd_gc", "use_gc": True}),
    "our task": ("paramwise_classification_task", {"name": "sgd"}),
    "gc": ("classification_task", {"name": "gc", "base_optimizer": {"name": "sgd"}}),
    "param_groups": ("paramwise_classification_task", {"name": "sgd"} | PARAM_GROUPS),
}


def rates(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["options"]["lr"] for line in lines if line.get("phase") == "train"]


@pytest.mark.parametrize("case", CASES)
def test_epoch_schedules(case, here):
    task, optimizer = CASES[case]
    factor = 2 if "param_groups" in optimizer else 1

    def resumed(epochs, values, *flags):
        lr = {"name": "step", "values": values}
        config = short(epochs, samples=64)
        config |= {"name": task, "optimizer": optimizer | {"param_schedulers": {"lr": lr}}}
        assert train(config, "--output_folder", "run", "--skip_tensorboard", *flags) == 0
        return [rate / factor for rate in rates(here / "run")]

    assert resumed(2, [0.5, 0.25]) == [0.5, 0.25]
    resume = ("--checkpoint_load_path", "run/checkpoints/model_phase-0_end.torch")
    assert resumed(2, [0.05, 0.025], *resume) == [0.5, 0.025]
    resume = ("--checkpoint_load_path", "run/checkpoints")
    assert resumed(6, [0.5, 0.25], *resume) == [0.5, 0.025, 0.5, 0.25, 0.25, 0.25]
