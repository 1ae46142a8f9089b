import pytest
from classy_vision.optim import build_optimizer
from classy_vision.optim.param_scheduler import UpdateInterval, build_param_scheduler
from torch.optim.lr_scheduler import PolynomialLR

from .curves import of_classy, of_torch

CONFIG = {"name": "polynomial_floor", "start_value": 0.1, "end_value": 0.01, "power": 0.9}


@pytest.mark.parametrize("power", [0.5, 0.9, 1, 2])
def test_without_a_floor_it_is_torch_and_classy_vision(power):
    config = {**CONFIG, "end_value": 0, "power": power}
    values = of_classy(config, 50)
    assert values == pytest.approx(of_torch(PolynomialLR, 50, 0.1, total_iters=50, power=power))
    stock = {"name": "polynomial", "base_value": 0.1, "power": power}
    assert values == pytest.approx(of_classy(stock, 50))


def test_the_floor():
    above = of_classy({**CONFIG, "start_value": 0.09, "end_value": 0}, 50)
    values = of_classy(CONFIG, 50)
    assert values == pytest.approx([0.01 + x for x in above])
    assert values[0] == 0.1
    assert build_param_scheduler(CONFIG)(1) == 0.01


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_update_interval(interval):
    built = build_param_scheduler({**CONFIG, "update_interval": interval})
    assert built.update_interval == UpdateInterval[interval.upper()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_value": 0.01}, "unknown key 'min_value' in scheduler 'polynomial_floor'"),
        ({"power": 0}, "scheduler 'polynomial_floor': power must be a number > 0, not 0"),
        ({"power": "2"}, "power must be a number > 0, not '2'"),
        ({"end_value": None}, "end_value must be a number, not None"),
        ({"update_interval": "batch"}, "update_interval must be 'step' or 'epoch', not 'batch'"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_param_scheduler({**CONFIG, **changes})


@pytest.mark.parametrize("key", ["start_value", "end_value", "power"])
def test_required_keys(key):
    with pytest.raises(ValueError, match=f"missing key '{key}' in scheduler 'polynomial_floor'"):
        build_param_scheduler({k: v for k, v in CONFIG.items() if k != key})


def test_a_value_out_of_range_is_refused_with_the_optimizer():
    schedulers = {"lr": {**CONFIG, "end_value": -0.1}}
    config = {"name": "sgd_gc", "num_epochs": 2, "param_schedulers": schedulers}
    with pytest.raises(ValueError, match=r"param_schedulers.lr must be a number >= 0, not -0"):
        build_optimizer(config)
