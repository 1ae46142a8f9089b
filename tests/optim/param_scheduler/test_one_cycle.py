import numpy as np
import pytest
from classy_vision.optim.param_scheduler import UpdateInterval, build_param_scheduler
from torch.optim.lr_scheduler import OneCycleLR

from .curves import of_classy, of_torch

STEPS = 1000
# torch's defaults: a 25th of the peak, the peak, a 10,000th of the start.
RATE = {"name": "one_cycle", "start_value": 0.004, "peak_value": 0.1, "end_value": 4e-7}
MOMENTUM = {"name": "one_cycle", "start_value": 0.95, "peak_value": 0.85, "end_value": 0.95}


@pytest.mark.parametrize(("anneal", "of_torchs"), [("cosine", "cos"), ("linear", "linear")])
@pytest.mark.parametrize("pct_start", [0.3, 0.5])
def test_it_is_torchs(anneal, of_torchs, pct_start):
    options = {"pct_start": pct_start, "anneal_strategy": of_torchs, "max_lr": 0.1}
    rates, momenta = of_torch(OneCycleLR, STEPS, 0.1, 0.9, total_steps=STEPS, **options)
    own = {"pct_start": pct_start, "anneal": anneal}
    rate, momentum = of_classy({**RATE, **own}, STEPS), of_classy({**MOMENTUM, **own}, STEPS)
    # torch counts from its first step to its last, Classy Vision to the end of training: the
    # peak of torch comes one step earlier.
    assert np.argmax(rates) + 1 == np.argmax(rate) == pct_start * STEPS
    np.testing.assert_allclose(rate, rates, atol=0.1 * 2 * np.pi / STEPS)
    np.testing.assert_allclose(momentum, momenta, atol=0.1 * 2 * np.pi / STEPS)
    assert (rate[0], momentum[0]) == pytest.approx((rates[0], momenta[0]))
    assert (max(rate), min(momentum)) == pytest.approx((max(rates), min(momenta)))


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
def test_it_is_a_composite_of_two(anneal):
    parts = [
        {"name": anneal, "start_value": 0.004, "end_value": 0.1},
        {"name": anneal, "start_value": 0.1, "end_value": 4e-7},
    ]
    two = {"name": "composite", "schedulers": parts, "lengths": [0.3, 0.7]}
    assert of_classy({**RATE, "anneal": anneal}, 50) == pytest.approx(of_classy(two, 50), abs=1e-9)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_update_interval(interval):
    built = build_param_scheduler({**RATE, "update_interval": interval})
    assert built.update_interval == UpdateInterval[interval.upper()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_value": 0.1}, "unknown key 'max_value' in scheduler 'one_cycle'"),
        ({"pct_start": 0}, r"one_cycle': pct_start must be a number in \(0, 1\), not 0"),
        ({"pct_start": 1.0}, "pct_start must be a number"),
        ({"anneal": "cos"}, "anneal must be 'cosine' or 'linear', not 'cos'"),
        ({"anneal": []}, "anneal must be"),
        ({"peak_value": "0.1"}, "peak_value must be a number, not '0.1'"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_param_scheduler({**RATE, **changes})


@pytest.mark.parametrize("key", ["start_value", "peak_value", "end_value"])
def test_required_keys(key):
    with pytest.raises(ValueError, match=f"missing key '{key}' in scheduler 'one_cycle'"):
        build_param_scheduler({k: v for k, v in RATE.items() if k != key})
