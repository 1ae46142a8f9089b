"""Resuming from a checkpoint of the same optimizer, of the stock one, or with another config."""

import copy
import io
import logging

import pytest
import torch
from classy_vision.optim import ClassyOptimizer, register_optimizer

from tests.pairwise import pairwise

from .cases import (
    CONFIGS,
    STOCK,
    WITH_FUSED,
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

pytestmark = pytest.mark.filterwarnings("error:.*load_state_dict")

every_row = pytest.mark.parametrize("row", CONFIGS)
# rmsprop_tf promises no such thing: the stock second moment is a square root.
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
    # The config decides only what is not in the checkpoint.
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
    (warning,) = warnings_of(caplog)
    assert "the checkpoint wins over the config: lr stays 0.01 (config: 9.0)" in warning


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


SPEED = [row for row in WITH_FUSED if "rmsprop" not in row]  # whose configs here are centered


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


@pytest.mark.parametrize(
    ("row", "differ", "groups"),
    pairwise(
        list(CONFIGS),
        DIFFER,
        [1, 2],
        allowed=lambda row, differ, _: row != "sgd_gc" or "gc_loc" not in differ[0],
    ),
)
def test_the_config_wins_and_one_warning_says_so(row, differ, groups, caplog):
    was, now = differ
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
def test_what_is_not_about_gc_comes_from_the_checkpoint_and_one_warning_says_so(row, caplog):
    params, grads = problem(2)
    optimizer = build(config(row), params)
    advance(optimizer, grads)
    changes = {"lr": 9.0, "weight_decay": 0.7, "eps": 0.5, "use_gc": True}
    changes = {k: v for k, v in changes.items() if k == "use_gc" or k in options_of(row)}
    if "betas" in options_of(row):
        changes["betas"] = [0.5, 0.6]
    other, _ = resumed(config(row, **changes), params, saved(optimizer))
    (warning,) = warnings_of(caplog)
    assert repr(CONFIGS[row]["name"]) in warning
    assert "the config wins over the checkpoint: use_gc is True (was False)" in warning
    for name, value in changes.items():
        if name == "use_gc":
            continue
        kept, value = (
            tuple(v) if isinstance(v, list) else v for v in (options_of(row)[name], value)
        )
        assert getattr(other.options_view, name) == kept
        assert f"{name} stays {kept} (config: {value})" in warning


def test_what_has_a_schedule_is_no_difference(caplog):
    params, grads = problem(4)
    schedules = {
        "lr": {"name": "linear", "start_value": 0.02, "end_value": 0.0},
        "momentum": {"name": "linear", "start_value": 0.5, "end_value": 0.9},
    }
    optimizer = build(config("adam_gc", param_schedulers=schedules), params)
    advance(optimizer, grads[:2], total=4)
    state = saved(optimizer)
    schedules["lr"]["start_value"] = 0.5
    other, _ = resumed(
        config("adam_gc", lr=3.0, betas=[0.1, 0.99], param_schedulers=schedules), params, state
    )
    advance(other, grads[2:], start=2, total=4)
    assert other.options_view.lr == pytest.approx(0.125)
    assert not warnings_of(caplog)


def test_the_constant_of_a_group_is_the_configs(caplog):
    params, grads = problem(4)
    optimizer = build(config("sgd_gc"), params, lr=0.01)
    advance(optimizer, grads[:1], total=4)
    other = build(config("sgd_gc"), copies(params), lr=0.5)
    other.set_classy_state(saved(optimizer))
    (warning,) = warnings_of(caplog)
    assert "the config wins over the checkpoint: lr is 0.5 (was 0.01)" in warning
    advance(other, grads[1:], start=1, total=4)
    assert other.options_view.lr == 0.5


def by_epochs(num_epochs, lr):
    return {"num_epochs": num_epochs, "param_schedulers": {"lr": lr}}


STEP = {"name": "step", "values": [0.08, 0.04]}
LINEAR = {"name": "linear", "start_value": 0.8, "end_value": 0.0, "update_interval": "epoch"}


@every_row
@pytest.mark.parametrize(
    ("before", "after", "where", "lr"),
    [
        (by_epochs(2, STEP), by_epochs(2, STEP | {"values": [0.008, 0.004]}), 0.5, 0.004),
        (by_epochs(4, STEP), by_epochs(8, STEP), 0.25, 0.08),
        (by_epochs(4, STEP), by_epochs(8, STEP), 0.5, 0.04),
        # The second of two batches of a step.
        (by_epochs(4, LINEAR), by_epochs(4, LINEAR), 0.375, 0.6),
    ],
)
def test_a_changed_schedule_of_epochs_counts_from_the_first_step(row, before, after, where, lr):
    params, grads = problem(1)
    optimizer = build(config(row, **before), params)
    advance(optimizer, grads)
    optimizer.on_epoch(0.5)
    other, _ = resumed(config(row, **after), params, saved(optimizer))
    other.step(where=where)
    assert other.options_view.lr == pytest.approx(lr, rel=1e-12)


# Between optimizers of the same kind, and of two kinds.

TORCH_GC = {"name": "torch_gc"}
FAMILIES = {
    "SGD": [
        {"name": "sgd", **STOCK["sgd"]},
        config("sgd_gc"),
        config("gc-sgd"),
        {**TORCH_GC, "optimizer": "SGD", **STOCK["sgd"]},
    ],
    **{
        kind: [
            {"name": name, **STOCK[name]},
            config(f"{name}_gc"),
            config(f"gc-{name}", gc_loc=name == "adamw"),  # the default of each of its own
            {**TORCH_GC, "optimizer": kind, **STOCK[name]},
        ]
        for kind, name in (("Adam", "adam"), ("AdamW", "adamw"), ("RMSprop", "rmsprop"))
    },
    "RAdam": [
        config("plain_radam_gc"),
        {**config("plain_radam_gc"), "name": "radam_gc"},
        {**TORCH_GC, "optimizer": "RAdam", **options_of("plain_radam_gc")},
    ],
    "RMSpropTF": [
        {"name": "rmsprop_tf", **STOCK["rmsprop_tf"]},
        config("rmsprop_tf_gc"),
        config("gc-rmsprop_tf"),
    ],
    "Adamax": [{**TORCH_GC, "optimizer": "Adamax", "lr": 0.01}],
    "NAdam": [{**TORCH_GC, "optimizer": "NAdam", "lr": 0.01}],
    "Adagrad": [{**TORCH_GC, "optimizer": "Adagrad", "lr": 0.01}],
}


def short(given):
    inner = given.get("base_optimizer", given)
    return given["name"].replace(inner["name"], "") + inner["name"] + inner.get("optimizer", "")


PAIRS = [
    pytest.param(was, now, id=f"{short(was)}-{short(now)}")
    for family in FAMILIES.values()
    for was in family
    for now in family
]


@pytest.mark.parametrize(("was", "now"), PAIRS)
def test_every_optimizer_goes_on_from_every_other_of_its_kind(was, now, caplog):
    params, grads = problem(8)
    first = build(copy.deepcopy(was), params)
    advance(first, grads[:6], total=8)
    second = build(copy.deepcopy(now), copies(params))
    second.set_classy_state(saved(first))
    own = second.param_groups[0]["params"]
    assert moments(second)
    assert_close(moments(second), moments(first), 0)
    advance(first, grads[6:], start=6, total=8)
    advance(second, grads[6:], start=6, total=8)
    assert_close(own, params)
    assert not warnings_of(caplog)


def with_gc(given):
    given = copy.deepcopy(given)
    if given["name"] not in STOCK:
        given["use_gc"] = True
        if given["name"] != "sgd_gc" and given.get("optimizer") != "SGD":
            given["gc_loc"] = False
    return given


@pytest.mark.parametrize(("was", "now"), [p for p in PAIRS if p.values[1]["name"] not in STOCK])
def test_the_gc_options_are_those_of_the_one_that_goes_on(was, now):
    params, grads = problem(8)
    first = build(with_gc(was), params)
    advance(first, grads[:6], total=8)
    second = build(with_gc(now), copies(params))
    fresh = {k: v for k, v in second.param_groups[0].items() if k != "params"}
    second.set_classy_state(saved(first))
    assert {k: v for k, v in second.param_groups[0].items() if k != "params"} == fresh
    own = second.param_groups[0]["params"]
    before, means = copies(own), row_means(own)
    advance(second, grads[6:], start=6, total=8)
    assert not any(torch.equal(x, y) for x, y in zip(own, before, strict=True))
    if "gc_loc" in fresh:
        assert_close(row_means(own), means)


@pytest.mark.parametrize(("was", "now"), [(a, b) for a in FAMILIES for b in FAMILIES if a != b])
def test_another_kind_is_refused_in_one_line(was, now):
    params, grads = problem(2)
    # Each of the one kind once, and each of the other.
    sources, targets = FAMILIES[was], [x for x in FAMILIES[now] if x["name"] not in STOCK]
    for i in range(max(len(sources), len(targets))):
        source, target = sources[i % len(sources)], targets[i % len(targets)]
        first = build(copy.deepcopy(source), copies(params))
        advance(first, grads)
        second = build(copy.deepcopy(target), copies(params))
        before = str(second.optimizer.state_dict())
        with pytest.raises(
            ValueError, match="the state of the optimizer is that of another: "
        ) as caught:
            second.set_classy_state(saved(first))
        assert repr(target["name"]) in str(caught.value)
        assert str(second.optimizer.state_dict()) == before


NEWER = {"decoupled_weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize"}


@pytest.mark.parametrize("name", SAME_KIND)
def test_the_state_of_an_older_torch_goes_on(name):
    stock, params, grads = stock_run(name, 3)
    state = saved(stock)
    for group in state["optim"]["param_groups"]:
        # A group without maximize is that of the stock rmsprop_tf.
        for option in NEWER - ({"maximize"} if name == "rmsprop" else set()):
            group.pop(option, None)
    for tensors in state["optim"]["state"].values():
        if "step" in tensors:
            tensors["step"] = int(tensors["step"])
    row = f"{name}_gc"
    optimizer, own = resumed(config(row, use_gc=False, **unfused(row)), params, state)
    advance(stock, grads[3:], start=3, total=8)
    advance(optimizer, grads[3:], start=3, total=8)
    assert_close(own, params)


@pytest.mark.parametrize("shapes", [[(3, 4), (4, 5)], [(3,)]], ids=["matrices", "vectors"])
@pytest.mark.parametrize("name", ["Adafactor", "ASGD", "Rprop"])
def test_a_class_may_keep_other_tensors_for_other_numbers_of_dimensions(name, shapes):
    params, grads = problem(2, shapes)
    given = {**TORCH_GC, "optimizer": name, "use_gc": True}
    first = build(given, params)
    advance(first, grads[:1], total=2)
    second, own = resumed(given, params, saved(first))
    advance(first, grads[1:], start=1, total=2)
    advance(second, grads[1:], start=1, total=2)
    assert_same(own, params)


def test_a_momentum_that_was_just_switched_on_has_no_buffer_yet():
    params, grads = problem(2)
    first = build({"name": "sgd_gc", "lr": 0.01}, params)
    advance(first, grads[:1], total=2)
    first.param_groups[0]["momentum"] = 0.9
    second, _ = resumed({"name": "sgd_gc", "lr": 0.01, "momentum": 0.9}, params, saved(first))
    advance(second, grads[1:], start=1, total=2)
    assert moments(second)


def test_larc_is_sgd():
    params, grads = problem(4)
    for was, now in (({}, {"use_larc": True}), ({"use_larc": True}, {})):
        first = build(config("sgd_gc", **was), params)
        advance(first, grads[:2], total=4)
        second = build(config("sgd_gc", **now), copies(params))
        second.set_classy_state(saved(first))
        advance(second, grads[2:], start=2, total=4)
        assert ("trust_coefficient" in second.param_groups[0]) is bool(now)


class CountingAdam(torch.optim.Adam):
    """A user's optimizer that writes into its groups at every step."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
        return super().step(closure)


@register_optimizer("test_checkpoints_counting_adam")
class ClassyCountingAdam(ClassyOptimizer):
    @classmethod
    def from_config(cls, config):
        return cls()

    def prepare(self, param_groups):
        self.optimizer = CountingAdam(param_groups, lr=0.01)


@pytest.mark.parametrize("use_gc", [False, True])
def test_ones_own_optimizer_keeps_what_it_wrote_into_its_groups(use_gc):
    params, grads = problem(6)
    given = {"name": "gc", "base_optimizer": {"name": "test_checkpoints_counting_adam"}}
    given["use_gc"] = use_gc
    first = build(given, params)
    advance(first, grads[:3], total=6)
    second, own = resumed(given, params, saved(first))
    assert second.options_view.k == 3
    advance(first, grads[3:], start=3, total=6)
    advance(second, grads[3:], start=3, total=6)
    assert second.options_view.k == 6
    assert_same(own, params)
    # It can read the state of Adam itself.
    third = build(given, copies(params))
    third.set_classy_state(saved(build(config("adam_gc"), params)))
    with pytest.raises(
        ValueError, match=r"is that of another: .*nesterov, .*, and CountingAdam has"
    ):
        third.set_classy_state(saved(build(config("sgd_gc"), params)))
