import copy
import math

import pytest
from classy_vision.optim import build_optimizer
from classy_vision.optim.param_scheduler import UpdateInterval, build_param_scheduler
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR

from .curves import of_classy, of_torch


def part(name, start, end):
    return {"name": name, "start_value": start, "end_value": end}


def composite(*schedulers, lengths):
    return {"name": "composite", "schedulers": list(schedulers), "lengths": lengths}


def cyclic(scheduler, periods=3, **options):
    return {"name": "cyclic", "scheduler": scheduler, "periods": periods, **options}


CONFIG = cyclic(part("cosine", 0.1, 0.01))


@pytest.mark.parametrize("periods", [1, 3, 7])
def test_a_cosine_is_warm_restarts(periods):
    wanted = of_torch(CosineAnnealingWarmRestarts, 20 * periods, 0.1, T_0=20, eta_min=0.01)
    assert of_classy({**CONFIG, "periods": periods}, 20 * periods) == pytest.approx(wanted)


def test_a_triangle_and_its_mirror_are_cyclic_rates_and_momenta():
    rate = composite(part("linear", 0.01, 0.1), part("linear", 0.1, 0.01), lengths=[0.4, 0.6])
    momentum = composite(part("linear", 0.95, 0.85), part("linear", 0.85, 0.95), lengths=[0.4, 0.6])
    options = {"step_size_up": 8, "step_size_down": 12, "base_momentum": 0.85, "max_momentum": 0.95}
    rates, momenta = of_torch(CyclicLR, 60, 0.01, 0.9, base_lr=0.01, max_lr=0.1, **options)
    assert of_classy(cyclic(rate), 60) == pytest.approx(rates)
    assert of_classy(cyclic(momentum), 60) == pytest.approx(momenta)


def mmcv(base, ratios, periods, gamma, step_ratio_up=0.4, steps=20):
    """MMCV's ``CyclicLrUpdaterHook``, from its documentation: the peak ends up at
    ``base + gamma^k · (peak − base)``, and nothing else changes from one period to the next.
    """
    up, values = int(step_ratio_up * steps), []
    for k in range(periods):
        peak = base + gamma**k * (base * ratios[0] - base)
        for step in range(steps):
            start, end, x = base, peak, step / up
            if step >= up:
                start, end, x = peak, base * ratios[1], (step - up) / (steps - up)
            values.append(end + 0.5 * (start - end) * (math.cos(math.pi * x) + 1))
    return values


def one_cycle(base, ratios):
    values = {"start_value": base, "peak_value": base * ratios[0], "end_value": base * ratios[1]}
    return {"name": "one_cycle", **values, "pct_start": 0.4}


@pytest.mark.parametrize("gamma", [1, 0.5, 0.9, 1.2])
@pytest.mark.parametrize("base", [0.01, 0.95])
@pytest.mark.parametrize("ratios", [(10, 1), (10, 1e-4), (0.85 / 0.95, 1)], ids=str)
def test_decay_is_mmcvs_gamma(base, ratios, gamma):
    wanted = mmcv(base, ratios, 4, gamma)
    given = cyclic(one_cycle(base, ratios), 4, decay=gamma)
    assert of_classy(given, 80) == pytest.approx(wanted)


def test_peaks_come_down_and_the_base_stays():
    values = of_classy(cyclic(one_cycle(0.01, (10, 1)), decay=0.5), 60)
    assert values[8::20] == pytest.approx([0.1, 0.055, 0.0325])
    assert values[::20] == pytest.approx([0.01] * 3)
    assert min(values) == pytest.approx(0.01)


@pytest.mark.parametrize("scheduler", [part("cosine", 0.1, 0.01), part("linear", 0.01, 0.1)])
def test_of_another_scheduler_what_is_above_its_lesser_end_decays(scheduler):
    once = of_classy(cyclic(scheduler, 1), 20)
    wanted = [0.01 + 0.5**k * (value - 0.01) for k in range(4) for value in once]
    values = of_classy(cyclic(scheduler, 4, decay=0.5), 80)
    assert values == pytest.approx(wanted, rel=1e-4)


def test_steps_decay_to_their_last():
    values = of_classy(cyclic({"name": "step", "values": [3, 2, 1]}, 2, decay=0.5), 6)
    assert values == [3, 2, 1, 2, 1.5, 1]


@pytest.mark.parametrize("periods", [3, 7, 11])
def test_each_period_begins_where_it_should(periods):
    values = of_classy(cyclic(part("linear", 1, 0), periods), 5 * periods)
    assert values == pytest.approx([1, 0.8, 0.6, 0.4, 0.2] * periods)
    built = build_param_scheduler(cyclic(part("linear", 1, 0), periods))
    assert built(1) == 0  # the end of the last one


def test_steps_see_a_whole_training_in_each_period():
    values = of_classy(cyclic({"name": "step", "values": [3, 2, 1]}, 2), 6)
    assert values == [3, 2, 1] * 2
    milestones = {"name": "multistep", "values": [2, 1], "milestones": [5]}
    assert of_classy(cyclic(milestones, 2), 4) == [2, 1] * 2


def test_the_config_stays_as_it_is():
    nested = {"num_epochs": 2, **cyclic(composite(CONFIG, lengths=[1]))}
    before = copy.deepcopy(nested)
    built = build_param_scheduler({**nested, "update_interval": "epoch"})
    assert built.update_interval == UpdateInterval.EPOCH
    assert nested == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (cyclic(CONFIG, cycles=3), "unknown key 'cycles' in scheduler 'cyclic'"),
        (cyclic(CONFIG, 0), "periods must be an integer > 0, not 0"),
        (cyclic(CONFIG, 2.5), "periods must be an integer > 0, not 2.5"),
        (cyclic(CONFIG, decay=0), "decay must be a number > 0, not 0"),
        (cyclic({"name": "cosin"}), "unknown scheduler 'cosin' in .* did you mean 'cosine'"),
        (cyclic({"start_value": 1}), "must be a ParamScheduler config with a 'name'"),
        (cyclic(0.1), "scheduler must be a ParamScheduler config, .*, not 0.1"),
        (cyclic({**CONFIG["scheduler"], "update_interval": "epoch"}), "beside it and not in"),
        (cyclic(CONFIG, update_interval=1), "update_interval must be 'step' or 'epoch', not 1"),
        ({"name": "cyclic", "periods": 2}, "missing key 'scheduler' in scheduler 'cyclic'"),
    ],
)
def test_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build_param_scheduler(config)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (cyclic(part("cosin", 1, 0)), r"param_schedulers.lr.scheduler, did you mean 'cosine'"),
        (cyclic({**part("cosine", 1, 0), "stop": 1}), r"'stop' in .*param_schedulers.lr.scheduler"),
        (cyclic({"start_value": 1}), r"lr.scheduler must be a ParamScheduler config with a 'name'"),
        (cyclic(part("cosine", 1, 0), period=3), r"unknown key 'period' .*did you mean 'periods'"),
        (cyclic(part("linear", 0.1, -1)), r"param_schedulers.lr must be a number >= 0, not -"),
    ],
)
def test_optimizers_check_the_inner_scheduler(schedule, message):
    config = {"name": "sgd_gc", "num_epochs": 2, "param_schedulers": {"lr": schedule}}
    with pytest.raises(ValueError, match=message):
        build_optimizer(config)
