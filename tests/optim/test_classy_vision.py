"""Classy Vision's own optimizer tests, which its package ships, for every name of this package."""

import importlib.metadata
import importlib.util
import unittest

import pytest
import torch.distributed as dist
from classy_vision.optim import OPTIMIZER_REGISTRY

from .cases import CONFIGS
from .test_torch_gc import NAMES

FILE = importlib.metadata.distribution("classy-vision").locate_file(
    "test/generic/optim_test_util.py"
)
# By its path: Python has a package of its own that is named ``test``.
_spec = importlib.util.spec_from_file_location("classy_vision_optim_test_util", FILE)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
CASES = [name for name in dir(_module.TestOptimizer) if name.startswith("test_")]

NAMED = {row.removeprefix("gc-"): c["name"] for row, c in CONFIGS.items()}
BASES = [
    *({"name": name} for name in dict.fromkeys(NAMED.values()) if name != "gc"),
    *(
        {"name": "gc", "base_optimizer": {"name": row.removeprefix("gc-"), "lr": 0.1}}
        for row in CONFIGS
        if row.startswith("gc-")
    ),
    *({"name": "torch_gc", "optimizer": name} for name in NAMES),
]
BASES = [base if "base_optimizer" in base else {"lr": 0.1, **base} for base in BASES]


def label(base):
    inner = base.get("base_optimizer", {"name": base.get("optimizer")})["name"]
    return "-".join(filter(None, (base["name"], inner)))


# These cases schedule options that the class lacks; the stock optimizers ignore them.
WITHOUT_MOMENTUM = ("ASGD", "Adadelta", "Adafactor", "Adagrad")
LACKS = {
    **{name: {"test_get_set_state": "unknown key 'momentum'"} for name in WITHOUT_MOMENTUM},
    "Rprop": {
        "test_get_set_state": "unknown key 'momentum'",
        "test_batchnorm_weight_decay": "unknown key 'weight_decay'",
        "test_lr_schedule": "unknown key 'lr' in param_schedulers",
        "test_get_lr": "lr cannot be scheduled",
    },
}


def run(config, cls, case):
    class Case(_module.TestOptimizer, unittest.TestCase):
        def _get_config(self):
            return {"num_epochs": 90, **config}

        def _instance_to_test(self):
            return cls

    lacks = LACKS.get(config.get("base_optimizer", config).get("optimizer"), {}).get(case)
    if lacks:
        with pytest.raises(ValueError, match=lacks):
            getattr(Case(case), case)()
    else:
        getattr(Case(case), case)()


@pytest.mark.parametrize("use_gc", [False, True])
@pytest.mark.parametrize("base", BASES, ids=label)
def test_passes(base, use_gc):
    for case in CASES:
        run({**base, "use_gc": use_gc}, OPTIMIZER_REGISTRY[base["name"]], case)


@pytest.mark.parametrize("base", BASES, ids=label)
def test_passes_under_zero(base, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        config = {"name": "zero", "base_optimizer": {**base, "use_gc": True}}
        for case in CASES:
            run(config, OPTIMIZER_REGISTRY["zero"], case)
    finally:
        dist.destroy_process_group()
