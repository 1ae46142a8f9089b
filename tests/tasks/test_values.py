"""Values that Classy Vision would misread are refused in every section."""

import json
import re
from pathlib import Path

import classy_vision
import pytest
from classy_vision.dataset.transforms import ClassyTransform, register_transform
from classy_vision.tasks import build_task

from classy_gc.configuration.schema import check_config
from classy_gc.tasks.values import check_values
from tests.commands.training import short

CLASSY_VISION = Path(classy_vision.__file__).parent


def at(path, value):
    """A section of a config with a value at ``path``."""
    for key in reversed(path.split(".")):
        value = [value] if key.isdigit() else {key: value}
    return value


BOOLEANS = [
    "freeze_trunk",
    "reset_heads",
    "pretrained_checkpoint_load_strict",
    "test_only",
    "bn_weight_decay",
    "use_sharded_ddp",
    "distributed.find_unused_parameters",
    "distributed.fp16_grad_compress",
    "dataset.train.use_shuffle",
    "dataset.train.transforms.0.pad_if_needed",
    "model.small_input",
    "model.use_se",
    "model.first_dropout",
    "model.heads.0.zero_init_bias",
    "loss.loss.normalize_targets",
    "hooks.0.consider_bn_buffers",
    "optimizer.use_larc",
    "optimizer.nesterov",
    "optimizer.base_optimizer.amsgrad",
]
OR_NULL = ["use_gpu", "model.heads.0.use_dropout", "dataset.train.download"]
SHARES = [
    "mixup.label_smoothing",
    "mixup.switch_prob",
    "loss.label_smoothing",
    "loss.smoothing_param",
    "model.dropout",
]


def label(path):
    return re.sub(r"\.(\d+)", r"[\1]", path)


@pytest.mark.parametrize("path", BOOLEANS)
def test_booleans(path):
    for good in (True, False):
        check_values(at(path, good))
    for value in ("false", 0, None):
        message = f"{label(path)} must be true or false, not {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            check_values(at(path, value))


@pytest.mark.parametrize("path", OR_NULL)
def test_booleans_or_null(path):
    check_values(at(path, None))
    with pytest.raises(ValueError, match=re.escape(f"{label(path)} must be true, false or null")):
        check_values(at(path, "no"))


@pytest.mark.parametrize("value", [2, -0.1, True, "0.1"])
@pytest.mark.parametrize("path", SHARES)
def test_shares(path, value):
    for good in (0, 0.1, 1):
        check_values(at(path, good))
    with pytest.raises(ValueError, match=re.escape(f"{label(path)} must be a number in [0, 1]")):
        check_values(at(path, value))


@pytest.mark.parametrize("name", ["paramwise_classification_task", "paramwise_fine_tuning"])
def test_tasks_refuse_them_before_anything_is_built(name):
    given = short() | {"name": name, "bn_weight_decay": "false", "dataset": {}}
    for refuses in (build_task, check_config):
        with pytest.raises(ValueError, match="bn_weight_decay must be true or false"):
            refuses(given)


def test_what_others_read_is_theirs():
    @register_transform("values_test")
    class Transform(ClassyTransform):
        pass

    check_values({"name": "values_test", "inplace": "twice", "nested": {"num_epochs": "many"}})
    check_values({"optimizer": {"param_groups": {"custom_keys": {"bias": {"lr_mult": 2}}}}})


def test_configs_of_classy_vision_pass():
    for file in CLASSY_VISION.rglob("*.json"):
        check_values(json.loads(file.read_text()), file.name)
