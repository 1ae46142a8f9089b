"""One cycle needs no scheduler of its own: Classy Vision's ``composite`` is torch's OneCycleLR."""

import numpy as np
import pytest
from torch.optim.lr_scheduler import OneCycleLR

from .curves import of_classy, of_torch

STEPS = 1000


def one_cycle(anneal, start, top, end, pct_start):
    parts = [
        {"name": anneal, "start_value": start, "end_value": top},
        {"name": anneal, "start_value": top, "end_value": end},
    ]
    return {"name": "composite", "schedulers": parts, "lengths": [pct_start, 1 - pct_start]}


@pytest.mark.parametrize(("anneal", "of_torchs"), [("cosine", "cos"), ("linear", "linear")])
@pytest.mark.parametrize("pct_start", [0.3, 0.5])
def test_composite_is_one_cycle(anneal, of_torchs, pct_start):
    options = {"pct_start": pct_start, "anneal_strategy": of_torchs, "max_lr": 0.1}
    rates, momenta = of_torch(OneCycleLR, STEPS, 0.1, 0.9, total_steps=STEPS, **options)
    # torch's defaults: a 25th of the peak, the peak, and a 10,000th of the start.
    rate = of_classy(one_cycle(anneal, 0.004, 0.1, 4e-7, pct_start), STEPS)
    momentum = of_classy(one_cycle(anneal, 0.95, 0.85, 0.95, pct_start), STEPS)
    # torch counts from its first step to its last, Classy Vision to the end of training: the
    # peak of torch comes one step earlier.
    assert np.argmax(rates) + 1 == np.argmax(rate) == pct_start * STEPS
    np.testing.assert_allclose(rate, rates, atol=0.1 * 2 * np.pi / STEPS)
    np.testing.assert_allclose(momentum, momenta, atol=0.1 * 2 * np.pi / STEPS)
    assert (rate[0], momentum[0]) == pytest.approx((rates[0], momenta[0]))
    assert (max(rate), min(momentum)) == pytest.approx((max(rates), min(momenta)))
