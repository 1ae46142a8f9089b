import json
from pathlib import Path

import pytest
import torch
from classy_vision.tasks import build_task

import classy_gc
from classy_gc.configuration.load import load_config, read_config
from classy_gc.param_groups.tables import param_group_table

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.json"))
CONFIGS = [path for path in CONFIGS if "zero" not in path.stem]  # needs torchrun
GC_NAMES = ["sgd_gc", "adam_gc", "adamw_gc", "radam_gc", "plain_radam_gc"]
SIZES = {"imagenet": 224, "cifar10": 32, "cifar100": 32, "fashion": 28}


def without_data(path):
    """The config, with synthetic images of the same shape where it needs a download."""
    config = load_config(path)
    data = path.stem.split("_")[0]
    if data in SIZES:
        for phase, dataset in config["dataset"].items():
            config["dataset"][phase] = {
                "name": "synthetic_image",
                "crop_size": SIZES[data],
                "class_ratio": 0.5,
                "seed": 0,
                "num_samples": 2 * dataset["batchsize_per_replica"],
                **{k: dataset[k] for k in ("batchsize_per_replica", "use_shuffle", "num_workers")},
                # Synthetic samples are dicts already, and those of files tuples.
                "transforms": [
                    {
                        "name": "apply_transform_to_key",
                        "key": "input",
                        "transforms": dataset["transforms"][0]["transforms"],
                    }
                ],
            }
    return config


def test_all_are_found():
    names = {path.stem for path in CONFIGS}
    assert {f"digits_{name}" for name in GC_NAMES} <= names
    assert len(names) >= 9


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds_with_gc_on_and_its_own_schedule(path):
    config = without_data(path)
    assert config["optimizer"]["use_gc"] is True
    task = build_task(config)
    task.set_use_gpu(False)
    if config["name"].endswith("fine_tuning"):  # from itself
        state = {"base_model": task.base_model.get_classy_state(deep_copy=True)}
        task._set_pretrained_checkpoint_dict({"classy_state_dict": state})
    task.prepare()
    optimizer = task.optimizer.optimizer
    assert isinstance(optimizer, classy_gc.core.CentralizedOptimizer)
    lrs = [task.optimizer_schedulers["lr"](where) for where in (0.0, 0.1, 0.5, 0.9999)]
    assert lrs[-1] < lrs[1]  # every one decays, after a warm-up where there is one
    if "param_groups" not in config["optimizer"]:
        assert all(group["use_gc"] for group in optimizer.param_groups)
        assert {group["lr"] for group in optimizer.param_groups} == {lrs[0]}
    sample = task.datasets["train"][0]
    size = SIZES.get(path.stem.split("_")[0], sample["input"].shape[-1])
    assert sample["input"].shape == (3, size, size)
    model = config["model"]
    classes = model["heads"][0]["num_classes"] if "heads" in model else model["num_classes"]
    task.base_model.eval()
    with torch.no_grad():
        assert task.base_model(sample["input"][None]).shape == (1, classes)


@pytest.mark.parametrize("name", GC_NAMES)
def test_keys_of_digits_sgd_gc_are_those_of_all_five(name):
    config = json.loads((CONFIGS[0].parent / "digits_sgd_gc.json").read_text())
    config["optimizer"]["name"] = name
    task = build_task(config)
    task.set_use_gpu(False)
    task.prepare()
    group = task.optimizer.optimizer.param_groups[0]
    assert (group["momentum"] if name == "sgd_gc" else group["betas"][0]) == 0.9


def test_the_vision_transformer_centralizes_weights_of_layers_only():
    (path,) = (path for path in CONFIGS if "_vit_" in path.stem)
    config = without_data(path)
    config["model"] |= {"image_size": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}
    config["model"] |= {"mlp_dim": 8, "heads": [{**config["model"]["heads"][0], "in_plane": 8}]}
    table = param_group_table(build_task(config)).splitlines()
    off = {line.split()[0] for line in table if "use_gc false" in line}
    assert off == {"class_token", "encoder.pos_embedding"}


def test_efficientnet_has_tensorflows_rmsprop_and_the_papers_schedule():
    config = without_data(
        next(path for path in CONFIGS if path.stem.startswith("imagenet_efficientnet"))
    )
    task = build_task(config)
    task.set_use_gpu(False)
    task.prepare()
    wanted = {"momentum": 0.9, "alpha": 0.9, "eps": 1e-3, "initial_square_avg": 1}
    wanted |= {"lr_in_momentum": True, "centered": False}
    for group, decay in zip(task.optimizer.param_groups, (1e-5, 0), strict=True):
        assert {k: group[k] for k in wanted} == wanted
        assert group["weight_decay"] == decay
    rate = task.optimizer_schedulers["lr"]
    for epoch in (5.01, 20.5, 100.3, 349.9):
        # 146 values over 350 epochs, each for an equal time.
        decays = int(epoch / (350 / 146))
        assert rate(epoch / 350) == pytest.approx(0.016 * 0.97**decays)
    assert rate(2.5 / 350) == pytest.approx(0.008, rel=1e-3)


# For the data sets that do not give it themselves.
IMAGES = {"digits": 1442, "fashion_mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
IMAGES["classy_imagenet"] = IMAGES["image_path"] = 1_281_167
EVERY = sorted((Path(__file__).parents[1] / "configs").rglob("*.json"))


def test_no_epoch_ends_with_less_than_half_a_batch():
    for path in EVERY:
        train = read_config(path).get("dataset", {}).get("train")
        if train is None or train.get("drop_last"):
            continue
        size = train.get("num_samples") or IMAGES[train["name"]]
        last = size % train["batchsize_per_replica"]
        assert last == 0 or 2 * last >= train["batchsize_per_replica"], path
