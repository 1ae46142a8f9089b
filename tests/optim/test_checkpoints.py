"""Going on from a checkpoint: of the same optimizer, of the stock one, under another config."""

import copy
import io
import logging

import pytest
import torch

from .cases import (
    CONFIGS,
    PLAIN,
    STOCK,
    advance,
    assert_close,
    assert_same,
    build,
    config,
    copies,
    keeps_row_means,
    moments,
    options_of,
    problem,
    row_means,
)

every_row = pytest.mark.parametrize("row", CONFIGS)
# rmsprop_tf is left out of what is promised: its stock second moment is a square root.
SAME_KIND = [name for name in STOCK if name != "rmsprop_tf"]


def saved(optimizer):
    """The state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(optimizer.get_classy_state(), file)
    file.seek(0)
    return torch.load(file)


def resumed(config, params, state):
    """An optimizer of copies of ``params``, and these."""
    own = copies(params)
    optimizer = build(config, own)
    untouched = copy.deepcopy(state)
    optimizer.set_classy_state(state)
    assert_equal_states(state, untouched)
    return optimizer, own


def assert_equal_states(state, other):
    assert state["optim"]["param_groups"] == other["optim"]["param_groups"]
    for key, values in state["optim"]["state"].items():
        for name, value in values.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(other["optim"]["state"][key][name])
            )


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


SCHEDULED = {
    "param_schedulers": {
        "lr": {"name": "linear", "start_value": 0.02, "end_value": 0.0},
        "use_gc": {"name": "step", "values": [1, 0]},
    }
}


@pytest.mark.filterwarnings("error:.*as in torch it counts")
@pytest.mark.parametrize("at", [1, 4, 6])
@pytest.mark.parametrize("changes", [{"use_gc": True}, SCHEDULED], ids=["fixed", "scheduled"])
@every_row
def test_restored_it_goes_on_as_if_never_interrupted(row, changes, at, caplog):
    # Eight steps in two epochs: before, at and after the schedule's step.
    params, grads = problem(8)
    optimizer = build(config(row, **changes), params)
    advance(optimizer, grads[:at], total=8)
    state, middle = saved(optimizer), copies(params)
    advance(optimizer, grads[at:], start=at, total=8)

    other, own = resumed(config(row, **changes), middle, state)
    if changes is SCHEDULED:
        assert bool(other.options_view.use_gc) is (at < 4)
    advance(other, grads[at:], start=at, total=8)
    assert_same(own, params)
    assert_same(moments(other), moments(optimizer))
    assert not warnings_of(caplog)


# From the stock optimizer.


def stock_run(name, steps):
    """A stock optimizer after ``steps`` of eight steps, its weights, and all gradients."""
    params, grads = problem(8)
    optimizer = build({"name": name, **copy.deepcopy(STOCK[name])}, params)
    advance(optimizer, grads[:steps], total=8)
    return optimizer, params, grads


def unfused(row):
    return {} if row.startswith("gc-") else {"fused": False}


@pytest.mark.parametrize("row", [f"{n}_gc" for n in SAME_KIND] + [f"gc-{n}" for n in STOCK])
def test_a_stock_checkpoint_goes_on_bit_for_bit_without_gc(row, caplog):
    stock, params, grads = stock_run(row.removeprefix("gc-").removesuffix("_gc"), 3)
    # Only what is not in the checkpoint is left to the config.
    optimizer, own = resumed(
        config(row, lr=9.0, use_gc=False, **unfused(row)), params, saved(stock)
    )
    assert moments(optimizer)
    assert_same(moments(optimizer), moments(stock))
    group = optimizer.optimizer.param_groups[0]
    assert group["lr"] == stock.options_view.lr
    assert group["use_gc"] is False
    advance(stock, grads[3:], start=3, total=8)
    advance(optimizer, grads[3:], start=3, total=8)
    assert_same(own, params)
    assert not warnings_of(caplog)


@pytest.mark.parametrize("row", [f"{n}_gc" for n in SAME_KIND] + [f"gc-{n}" for n in STOCK])
def test_with_a_stock_checkpoint_gc_is_as_configured(row, caplog):
    stock, params, grads = stock_run(row.removeprefix("gc-").removesuffix("_gc"), 3)
    given = config(row, use_gc=True, gc_conv_only=True, **unfused(row))
    loc = "gc_loc" in build(given, params).optimizer.param_groups[0]
    if loc:
        given["gc_loc"] = row in ("gc-adam", "adam_gc")
    optimizer, own = resumed(given, params, saved(stock))
    group = optimizer.optimizer.param_groups[0]
    assert group["use_gc"] is group["gc_conv_only"] is True
    if loc:
        assert group["gc_loc"] is given["gc_loc"]
    means = row_means(own)
    if row == "sgd_gc":  # whose momentum goes on moving them
        for state in optimizer.optimizer.state.values():
            state["momentum_buffer"].zero_()
    advance(optimizer, grads[3:], start=3, total=8)
    if not (loc and given["gc_loc"]):
        assert_close(row_means(own)[:1], means[:1])
    assert (row_means(own)[1] - means[1]).abs().min() > 1e-4
    assert not warnings_of(caplog)


@pytest.mark.parametrize("row", [f"{n}_gc" for n in SAME_KIND])
def test_a_schedule_of_gc_catches_up_with_a_stock_checkpoint(row):
    stock, params, grads = stock_run(row.removesuffix("_gc"), 6)
    schedule = {"use_gc": {"name": "step", "values": [0, 1]}}
    given = keeps_row_means(row, param_schedulers=schedule, **unfused(row))
    optimizer, own = resumed(given, params, saved(stock))
    advance(optimizer, grads[6:7], start=6, total=8)
    assert optimizer.options_view.use_gc == 1
    by_hand, wanted = resumed(keeps_row_means(row, **unfused(row)), params, saved(stock))
    advance(by_hand, grads[6:7], start=6, total=8)
    assert_same(own, wanted)


SPEED = [row for row in PLAIN if "rmsprop" not in row]  # whose configs here are centered


@pytest.mark.parametrize(
    ("was", "now"), [(False, True), (True, False), (None, False), (False, None)]
)
@pytest.mark.parametrize("row", SPEED)
def test_speed_switches_are_as_configured(row, was, now, caplog):
    params, grads = problem(4)
    optimizer = build(config(row, use_gc=True, fused=was), params)
    advance(optimizer, grads[:2], total=4)
    other, own = resumed(config(row, use_gc=True, fused=now), params, saved(optimizer))
    assert bool(other.optimizer.param_groups[0]["fused"]) is (now is not False)
    advance(optimizer, grads[2:], start=2, total=4)
    advance(other, grads[2:], start=2, total=4)
    assert_close(own, params)
    assert not warnings_of(caplog)


# Where config and checkpoint disagree.

DIFFER = [
    ({"use_gc": True}, {"use_gc": False}),
    ({"use_gc": False}, {"use_gc": True}),
    ({"use_gc": True, "gc_conv_only": True}, {"use_gc": True, "gc_conv_only": False}),
    ({"use_gc": True, "gc_loc": True}, {"use_gc": True, "gc_loc": False}),
    ({"use_gc": True, "gc_loc": False}, {"use_gc": False, "gc_loc": True}),
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("row", "was", "now"),
    [
        pytest.param(row, was, now, id=f"{row}-{was}-{now}")
        for row in CONFIGS
        for was, now in DIFFER
        if row != "sgd_gc" or "gc_loc" not in was
    ],
)
def test_the_config_wins_and_one_warning_says_so(row, was, now, groups, caplog):
    params, grads = problem(6)

    def split(params):
        return [params] if groups == 1 else [params[:2], params[2:]]

    def optimizer_of(changes, params):
        optimizer = build(config(row, **changes), [params[0]])
        optimizer.set_param_groups([{"params": ps} for ps in split(params)])
        return optimizer

    first = optimizer_of(was, params)
    advance(first, grads[:3], total=6)
    own = copies(params)
    second = optimizer_of(now, own)
    caplog.clear()
    second.set_classy_state(saved(first))
    (warning,) = warnings_of(caplog)
    assert repr(CONFIGS[row]["name"]) in warning
    for name, value in now.items():
        assert all(g[name] is value for g in second.optimizer.param_groups)
        if was[name] != value:
            assert f"{name} is {value} (was {was[name]})" in warning
        else:
            assert name not in warning
    assert_same(moments(second), moments(first))

    for group in first.optimizer.param_groups:  # by hand
        group.update(now)
    advance(first, grads[3:], start=3, total=6)
    advance(second, grads[3:], start=3, total=6)
    assert_same(own, params)


@every_row
def test_what_is_not_about_gc_comes_from_the_checkpoint(row):
    params, grads = problem(2)
    optimizer = build(config(row), params)
    advance(optimizer, grads)
    other, _ = resumed(config(row, lr=9.0, weight_decay=0.7), params, saved(optimizer))
    for name in ("lr", "weight_decay"):
        assert getattr(other.options_view, name) == options_of(row)[name]


@pytest.mark.parametrize("shapes", [[(2, 2), (5,)], [(5,), (300, 300)]], ids=["other", "reordered"])
@pytest.mark.parametrize("row", [row for row in CONFIGS if row != "gc-rmsprop_tf"])
def test_a_checkpoint_of_other_shapes_is_refused(row, shapes):
    params, grads = problem(1, shapes)
    optimizer = build(config(row, use_gc=True), params)
    advance(optimizer, grads)
    state = saved(optimizer)
    params, grads = problem(1, [(300, 300), (5,)])
    optimizer = build(config(row, use_gc=True), params)
    with pytest.raises(ValueError, match=r"parameter 0 has shape .*the parameter \[300, 300\]"):
        optimizer.set_classy_state(state)
    advance(optimizer, grads)  # and goes on as it was
