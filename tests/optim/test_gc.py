"""``gc`` around any ClassyOptimizer, and the function beneath it around any torch optimizer."""

import copy

import pytest
import torch
from classy_vision.optim import ClassyOptimizer, register_optimizer
from torch.nn import Parameter

from classy_gc.core import CentralizedOptimizer, centralize_optimizer
from classy_gc.optim import GC

from .cases import (
    SHAPES,
    STOCK,
    advance,
    assert_close,
    build,
    centralized,
    clones,
    config,
    copies,
    problem,
    row_means,
    train,
)

# Every optimizer of torch whose step needs no closure: its options, and how it decays weights.
L2, DECOUPLED = False, True
WD = {"weight_decay": 0.1}
TORCH = {
    "Adadelta": ({"lr": 0.5, **WD}, L2),
    "Adafactor": ({"lr": 0.05, **WD}, DECOUPLED),
    "Adagrad": ({"lr": 0.05, **WD}, L2),
    "Adam": ({"lr": 0.05, "amsgrad": True, **WD}, L2),
    "AdamW": ({"lr": 0.05, **WD}, DECOUPLED),
    "Adam-decoupled": ({"lr": 0.05, "decoupled_weight_decay": True, **WD}, DECOUPLED),
    "Adamax": ({"lr": 0.05, **WD}, L2),
    "NAdam": ({"lr": 0.05, **WD}, L2),
    "NAdam-decoupled": ({"lr": 0.05, "decoupled_weight_decay": True, **WD}, DECOUPLED),
    "ASGD": ({"lr": 0.05, "t0": 2, **WD}, L2),
    "Rprop": ({"lr": 0.05}, L2),
    "RMSprop": ({"lr": 0.05, "momentum": 0.9, "centered": True, **WD}, L2),
    "SGD": ({"lr": 0.05, "momentum": 0.9, "nesterov": True, **WD}, L2),
    "SGD-maximize": ({"lr": 0.05, "momentum": 0.9, "maximize": True, **WD}, L2),
    "RAdam": ({"lr": 0.05, **WD}, L2),
    "Muon": ({"lr": 0.05, **WD}, DECOUPLED),
}
TORCH = {row: case for row, case in TORCH.items() if hasattr(torch.optim, row.partition("-")[0])}
every_torch_row = pytest.mark.parametrize("row", TORCH)


def torch_problem(row, steps=6, dtype=torch.float64):
    shapes = [(5, 3), (3, 4)] if row == "Muon" else SHAPES
    return problem(steps, shapes, dtype)


def make(row, params):
    return getattr(torch.optim, row.partition("-")[0])(params, **TORCH[row][0])


def step(optimizer, params, grads):
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    optimizer.step()


def eligible(tensors):
    return [x.dim() > 1 and x[0].numel() > 1 for x in tensors]


def test_the_table_holds_every_optimizer_of_torch():
    classes = {n for n, c in vars(torch.optim).items() if isinstance(c, type)}
    # SparseAdam takes only sparse gradients.
    assert {row.partition("-")[0] for row in TORCH} == classes - {
        "Optimizer",
        "LBFGS",
        "SparseAdam",
    }


@every_torch_row
def test_after_the_step_the_row_means_are_put_back(row):
    params, grads = torch_problem(row)
    start = clones(params)
    plain_params = copies(params)
    plain = make(row, plain_params)
    optimizer = centralize_optimizer(make(row, params))
    for step_grads in grads:
        before = clones(params)
        # The plain optimizer takes the same step from the same weights.
        with torch.no_grad():
            for p, x in zip(plain_params, before, strict=True):
                p.copy_(x)
        step(plain, plain_params, step_grads)
        step(optimizer, params, step_grads)
        for p, plain_p, x, apply in zip(
            params, plain_params, before, eligible(params), strict=True
        ):
            wanted = x + centralized(plain_p.detach() - x) if apply else plain_p
            assert_close([p], [wanted], 1e-12)
    for p, x, apply in zip(params, start, eligible(params), strict=True):
        assert not torch.allclose(p, x)
        if apply:
            assert_close([p.flatten(1).mean(1)], [x.flatten(1).mean(1)], 1e-12)


@every_torch_row
def test_before_the_moments_the_optimizer_is_fed_centralized_gradients(row):
    wd = 0 if TORCH[row][1] is DECOUPLED else TORCH[row][0].get("weight_decay", 0)
    wd = -wd if "maximize" in row else wd
    params, grads = torch_problem(row)
    plain_params = copies(params)
    plain = make(row, plain_params)
    optimizer = centralize_optimizer(make(row, params), gc_loc=True)
    for step_grads in grads:
        fed = [
            centralized(g + wd * p.detach()) - wd * p.detach() if apply else g
            for g, p, apply in zip(step_grads, plain_params, eligible(params), strict=True)
        ]
        step(plain, plain_params, fed)
        step(optimizer, params, step_grads)
        assert_close(params, plain_params, 1e-10)


def test_an_optimizer_may_be_centralized_in_the_middle_of_training():
    params, grads = torch_problem("Adam")
    optimizer = make("Adam", params)
    for step_grads in grads[:3]:
        step(optimizer, params, step_grads)
    means, state = row_means(params), optimizer.state
    centralize_optimizer(optimizer)
    assert optimizer.state is state
    for step_grads in grads[3:]:
        step(optimizer, params, step_grads)
    assert_close(row_means(params), means, 1e-12)


def test_groups_keep_the_options_they_have():
    params, grads = torch_problem("SGD", 2)
    means = row_means(params)
    groups = [{"params": params[:1], "use_gc": False}, {"params": params[1:]}]
    optimizer = centralize_optimizer(torch.optim.SGD(groups, lr=0.1))
    assert [g["use_gc"] for g in optimizer.param_groups] == [False, True]
    for step_grads in grads:
        step(optimizer, params, step_grads)
    assert (row_means(params)[0] - means[0]).abs().min() > 1e-3
    assert_close(row_means(params)[1:], means[1:], 1e-12)
    late = Parameter(torch.randn(3, 4, dtype=torch.float64))
    optimizer.add_param_group({"params": [late]})
    assert optimizer.param_groups[-1]["use_gc"] is True


# Refusals.


class SignSGD(torch.optim.Optimizer):
    """An optimizer that torch has never heard of: ``p −= lr·sign(g + wd·p)``."""

    def __init__(self, params, lr=0.01, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    d = p.grad + group["weight_decay"] * p
                    p.sub_(d.sign(), alpha=group["lr"])


def sgd(params, **options):
    return torch.optim.SGD(params, lr=0.1, **options)


REFUSED = {
    "not an optimizer": (lambda ps: ps, {}, TypeError, "must be a torch.optim.Optimizer, not list"),
    "a class": (lambda ps: torch.optim.SGD, {}, TypeError, "not type"),
    "twice": (lambda ps: centralize_optimizer(sgd(ps)), {}, TypeError, "already centralizes"),
    "LBFGS": (lambda ps: torch.optim.LBFGS(ps), {}, ValueError, "LBFGS cannot be .* closure"),
    "unknown decay": (
        lambda ps: SignSGD(ps, weight_decay=0.1),
        {"gc_loc": True},
        ValueError,
        "SignSGD is: say decoupled_weight_decay",
    ),
    "use_gc": (sgd, {"use_gc": "yes"}, ValueError, "use_gc.*'yes'"),
    "gc_loc": (sgd, {"gc_loc": None}, ValueError, "gc_loc.*None"),
    "gc_conv_only": (sgd, {"gc_conv_only": []}, ValueError, r"gc_conv_only.*\[\]"),
    "differentiable": (
        lambda ps: sgd(ps, differentiable=True),
        {},
        ValueError,
        "cannot be combined with differentiable",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_cannot_be_centralized_stays_as_it_was(row):
    build_one, options, error, message = REFUSED[row]
    params, grads = problem(1)
    optimizer = build_one(params)
    cls = type(optimizer)
    groups = copy.copy(getattr(optimizer, "param_groups", None))
    keys = [set(g) for g in groups] if isinstance(optimizer, torch.optim.Optimizer) else []
    with pytest.raises(error, match=message):
        centralize_optimizer(optimizer, **options)
    assert type(optimizer) is cls
    if keys:
        assert [set(g) for g in optimizer.param_groups] == keys
        if cls not in (torch.optim.LBFGS,) and "differentiable" not in row:
            step(optimizer, params, grads[0])


# ``gc``.


@register_optimizer("test_gc_sign_sgd")
class ClassySignSGD(ClassyOptimizer):
    """A user's optimizer without a learning rate in its config, which counts its calls."""

    def __init__(self, lr, weight_decay):
        super().__init__()
        self.lr, self.weight_decay = lr, weight_decay
        self.steps, self.epochs, self.states, self.zeroed = [], [], 0, 0

    @classmethod
    def from_config(cls, config):
        config.setdefault("lr", 0.01)
        return cls(config["lr"], config.pop("weight_decay", 0.1))

    def prepare(self, param_groups):
        self.optimizer = SignSGD(param_groups, self.lr, self.weight_decay)

    def step(self, *args, closure=None, where=None):
        self.steps.append(where)
        super().step(*args, closure=closure, where=where)

    def on_epoch(self, where):
        self.epochs.append(where)
        super().on_epoch(where)

    def get_classy_state(self):
        return {**super().get_classy_state(), "steps": self.steps}

    def set_classy_state(self, state):
        super().set_classy_state(state)
        self.steps = list(state["steps"])

    def zero_grad(self):
        self.zeroed += 1
        super().zero_grad()


OWN = {"name": "gc", "use_gc": True, "base_optimizer": {"name": "test_gc_sign_sgd"}}


@pytest.mark.parametrize("gc_loc", [False, True])
def test_around_an_optimizer_of_ones_own(gc_loc):
    params, grads = problem(4)
    wanted = clones(params)
    decay = {"decoupled_weight_decay": False} if gc_loc else {}
    given = {**copy.deepcopy(OWN), "gc_loc": gc_loc, **decay}
    before = copy.deepcopy(given)
    optimizer = build(given, params)
    assert given == before
    assert isinstance(optimizer.optimizer, SignSGD)
    assert isinstance(optimizer.optimizer, CentralizedOptimizer)
    advance(optimizer, grads)
    for i, c in enumerate([centralized if x else lambda x: x for x in eligible(wanted)]):
        for step_grads in grads:
            d = step_grads[i] + 0.1 * wanted[i]
            wanted[i] = wanted[i] - 0.01 * (c(d).sign() if gc_loc else c(d.sign()))
    assert_close(params, wanted, 1e-6)


def test_what_it_overrides_goes_on_working():
    params, grads = problem(4)
    schedulers = {
        "lr": {"name": "step", "values": [0.1, 0.01]},
        "weight_decay": {"name": "linear", "start_value": 0.1, "end_value": 0.0},
    }
    optimizer = build({**OWN, "param_schedulers": schedulers}, params)
    base = optimizer.base_optimizer
    advance(optimizer, grads)
    assert base.steps == [0, 0.25, 0.5, 0.75]
    assert base.epochs == [0.5, 1]
    assert optimizer.options_view.lr == base.options_view.lr == 0.01
    assert optimizer.options_view.weight_decay == pytest.approx(0.025)
    optimizer.zero_grad()
    assert base.zeroed == 1
    assert all(p.grad is None for p in params)

    other = build(OWN, copies(params))
    other.set_classy_state(optimizer.get_classy_state())
    assert other.base_optimizer.steps == base.steps


def test_before_the_moments_it_must_be_told_the_kind_of_decay():
    with pytest.raises(ValueError, match="SignSGD is: say decoupled_weight_decay"):
        build({**OWN, "gc_loc": True}, problem(0)[0])
    base = {"name": "test_gc_sign_sgd", "weight_decay": 0}
    build({**OWN, "gc_loc": True, "base_optimizer": base}, problem(0)[0])


@pytest.mark.parametrize(
    ("gc_loc", "options"), [(False, {}), (True, {}), (False, {"gc_conv_only": True})]
)
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_it_agrees_with_the_optimizer_of_its_own(name, gc_loc, options):
    _, grads = problem(6)
    loc = {} if name == "sgd" else {"gc_loc": gc_loc}
    around = {"gc_loc": True} if name == "sgd" else loc  # where SGD's GC always is
    assert_close(
        train(config(f"gc-{name}", use_gc=True, **around, **options), grads)[0],
        train(config(f"{name}_gc", use_gc=True, **loc, **options), grads)[0],
        0,
    )


@pytest.mark.parametrize("name", STOCK)
def test_the_kind_of_decay_of_stock_optimizers_is_known(name):
    params, grads = problem(4, dtype=torch.float64)
    stock_params = copies(params)
    stock = build({"name": name, **copy.deepcopy(STOCK[name])}, stock_params)
    wd = 0 if name == "adamw" else STOCK[name]["weight_decay"]
    optimizer = build(config(f"gc-{name}", use_gc=True, gc_loc=True), params)
    for t, step_grads in enumerate(grads):
        fed = [
            centralized(g + wd * p.detach()) - wd * p.detach() if apply else g
            for g, p, apply in zip(step_grads, stock_params, eligible(params), strict=True)
        ]
        advance(stock, [fed], start=t, total=4)
        advance(optimizer, [step_grads], start=t, total=4)
        assert_close(params, stock_params, 1e-9)


def test_from_python():
    base = ClassySignSGD(0.1, 0.0)
    optimizer = GC(base, use_gc=True)
    params, grads = problem(2)
    means = row_means(params)
    optimizer.set_param_groups(params)
    assert base.optimizer is optimizer.optimizer
    advance(optimizer, grads)
    assert_close(row_means(params), means)
    with pytest.raises(ValueError, match="'gc' already centralizes"):
        GC(optimizer)
