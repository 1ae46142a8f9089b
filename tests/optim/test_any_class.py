"""``torch_gc`` with every class of other packages: it trains, keeps row means and resumes, or says
why it cannot.
"""

import copy
import inspect
import logging
import re

import pytest
import torch
import torch.distributed as dist
from classy_vision.optim import build_optimizer

from .cases import advance, assert_close, assert_same, build, copies, problem, row_means

CLOSURE = "requires closure"
SECOND = "does not require grad"  # derivatives of gradients
NOT_PARAMETERS = "not from parameters"
PHASES = r"wants train\(\) and eval\(\)"
CANNOT_SAY = "which a config cannot express"
MUON = "`use_muon` must be set"
REFUSED = {
    "pytorch_optimizer": {
        **dict.fromkeys(["AdaGO", "AdaMuon", "DistributedMuon"], MUON),
        **dict.fromkeys(["Muon", "MuonClip", "NorMuon"], MUON),
        **dict.fromkeys(["AdaHessian", "SophiaH"], SECOND),
        **dict.fromkeys(["AdaLOMO", "AdamMini", "LOMO", "Lookahead", "Magma"], NOT_PARAMETERS),
        **dict.fromkeys(["OrthoGrad", "PCGrad", "SafeFP16Optimizer", "TRAC"], NOT_PARAMETERS),
        **dict.fromkeys(["ScheduleFreeWrapper", "WSAM"], NOT_PARAMETERS),
        **dict.fromkeys(["FriendlySAM", "GSAM", "LookSAM", "SAM"], CANNOT_SAY),
        **dict.fromkeys(["SPlus", "ScheduleFreeAdamW", "ScheduleFreeRAdam"], PHASES),
        "ScheduleFreeSGD": PHASES,
        "AliG": CLOSURE,
        "BSAM": "missing key 'num_data'",
        "DeMo": "einops",
        "LoRARite": "cannot be multiplied",  # it is for pairs of low-rank matrices
        "Ranger21": "missing key 'num_iterations'",
        "SpectralSphere": "only supports 2D parameters",
    },
    "timm.optim": {"Adahessian": SECOND, "Lookahead": NOT_PARAMETERS, "SGDP": "missing key 'lr'"},
    "optimi": {
        **dict.fromkeys(["Adam", "AdamW", "Adan", "Lion", "RAdam"], "missing key 'lr'"),
        **dict.fromkeys(["Ranger", "SGD", "StableAdamW"], "missing key 'lr'"),
    },
}
TOGETHER = "steps each weight by all weights"
DRAWS = "draws random numbers"
BESIDE = "beside the state of its weights"
#: classes that a process cannot step and save for its share of the weights alone
REFUSED_BY_ZERO = {
    "pytorch_optimizer": {
        **dict.fromkeys(["ASGD", "AdaGC", "Adai", "AvaGrad", "Prodigy"], TOGETHER),
        **dict.fromkeys(["DASH", "Gravity", "Kron"], DRAWS),
        **dict.fromkeys(["DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion"], TOGETHER),
        **dict.fromkeys(["DAdaptSGD", "LoRARite"], TOGETHER),
        **dict.fromkeys(["EmoFact", "EmoLynx", "EmoNavi", "MADGRAD", "SPAM", "StableSPAM"], BESIDE),
    },
    "timm.optim": {"Lamb": TOGETHER},
}
#: classes that hardly move in so few steps: they wait, or begin with a tiny step
SLOW = ("AdaShift", "DAdaptSGD", "SaRA")


def classes(package):
    """The names of a package's optimizers, without torch's own."""
    return [
        name
        for name, cls in inspect.getmembers(pytest.importorskip(package), inspect.isclass)
        if issubclass(cls, torch.optim.Optimizer) and not cls.__module__.startswith("torch.optim")
    ]


def config(package, name, **options):
    return {"name": "torch_gc", "optimizer": f"{package}.{name}", "use_gc": True, **options}


def trains_and_resumes(given):
    """Six steps, and the same six with a checkpoint in the middle; how far the weights moved."""
    params, grads = problem(6)
    before = copies(params)
    torch.manual_seed(0)
    optimizer = build(given, params)
    advance(optimizer, grads[:3], total=6)
    if given["name"] == "zero":
        optimizer.consolidate_state_dict()
    state, middle = copy.deepcopy(optimizer.get_classy_state()), copies(params)
    torch.manual_seed(1)
    advance(optimizer, grads[3:], start=3, total=6)
    assert_close(row_means(params), row_means(before), 1e-4)
    resumed = build(given, middle)
    resumed.set_classy_state(state)
    torch.manual_seed(1)
    advance(resumed, grads[3:], start=3, total=6)
    assert_same(middle, params)
    return max((p - b).abs().max() for p, b in zip(params, before, strict=True))


def faults_of(package, given_of, refused):
    """What is wrong with the classes of a package: an unexpected refusal, or no training."""
    for name in classes(package):
        try:
            moved = trains_and_resumes(given_of(name))
            if name in refused or not (moved > 1e-6 or name in SLOW):
                yield f"{name} moved by {moved}, or is not refused any more"
        except (ValueError, RuntimeError) as error:
            fragment = refused.get(name)
            if fragment is None or not re.search(fragment, str(error)) or "\n" in str(error):
                yield f"{name}: {error}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", REFUSED)
def test_every_class_of_a_package_trains_or_is_refused_with_the_reason(package):
    assert not list(faults_of(package, lambda name: config(package, name), REFUSED[package]))


def under_zero(base):
    return {"name": "zero", "base_optimizer": base}


@pytest.fixture
def process_group(tmp_path):
    pytest.importorskip("fairscale")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", REFUSED_BY_ZERO)
def test_so_does_every_class_under_zero(package, process_group):
    refused = REFUSED[package] | REFUSED_BY_ZERO[package]
    assert not list(faults_of(package, lambda name: under_zero(config(package, name)), refused))


@pytest.mark.parametrize("wrap", [dict, under_zero])
@pytest.mark.parametrize("name", ["Adam", "Lion", "SGD", "Adan"])
def test_required_options_are_keys(name, wrap, process_group):
    pytest.importorskip("optimi")
    assert trains_and_resumes(wrap(config("optimi", name, lr=0.01))) > 1e-6


@pytest.mark.parametrize("name", ["Lion", "AdamP"])
def test_schedules_and_groups(name):
    pytest.importorskip("timm.optim")
    linear = {"name": "linear", "start_value": 0.1, "end_value": 0.0}
    given = config("timm.optim", name, param_schedulers={"lr": linear, "momentum": linear})
    params, grads = problem(4)
    optimizer = build_optimizer({**given, "num_epochs": 2})
    optimizer.set_param_groups(
        [{"params": params[:1], "weight_decay": 0.5}, {"params": params[1:]}]
    )
    advance(optimizer, grads)
    for group, decay in zip(optimizer.param_groups, (0.5, 0.0), strict=True):
        assert group["lr"] == group["betas"][0] == pytest.approx(0.025)
        assert group["weight_decay"] == decay


WRONG = [
    (config("timm.optim", "Loin"), ["'Loin'", "did you mean 'Lion'?"]),
    (config("timm.optimm", "Lion"), ["'timm.optimm' cannot be imported: ModuleNotFound"]),
    (config("timm.optim", "Lion", bets=[0.9, 0.99]), ["'bets'", "did you mean 'betas'?"]),
    (config("timm.optim", "Lion", lr="1"), ["lr must be a number >= 0, not '1'"]),
    (config("timm.optim", "Lion", caution=1), ["caution must be true or false, not 1"]),
    (config("timm.optim", "Adan", betas=[0.9, 0.9]), ["betas must be a list of 3 numbers"]),
    (config("timm.optim", "Adan", no_prox="yes"), ["no_prox must be true or false, not 'yes'"]),
    (config("json", "JSONDecoder"), ["'JSONDecoder'"]),
]


@pytest.mark.parametrize(("given", "fragments"), WRONG, ids=lambda value: str(value)[20:80])
def test_what_is_wrong_is_named(given, fragments):
    pytest.importorskip("timm.optim")
    with pytest.raises(ValueError, match="torch_gc") as caught:
        build_optimizer(given)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_the_kind_of_decay_is_asked_for_unless_the_class_says_it():
    pytest.importorskip("timm.optim")
    lion = config("timm.optim", "Lion", gc_loc=True, weight_decay=0.1)
    with pytest.raises(ValueError, match="say decoupled_weight_decay"):
        build_optimizer(lion)
    build_optimizer({**lion, "decoupled_weight_decay": True})
    build_optimizer(config("timm.optim", "Lamb", gc_loc=True, weight_decay=0.1))


def test_a_class_that_centralizes_by_itself_does_so_only_once():
    pytest.importorskip("pytorch_optimizer")
    given = config("pytorch_optimizer", "Ranger", lr=0.01)
    params, grads = problem(8)
    means = row_means(params)
    advance(build({**given, "use_gc": False}, params), grads)
    assert (row_means(params)[0] - means[0]).abs().max() > 1e-4


LION = '''
import torch

class Mine(torch.optim.Optimizer):
    """``p −= lr·sign(β₁·m + (1 − β₁)·g)``: https://arxiv.org/abs/2302.06675."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("{moment}", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(m.lerp(p.grad, 1 - beta1).sign(), alpha=group["lr"])
                m.lerp_(p.grad, 1 - beta2)
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Two classes in the current folder that keep tensors of different names."""
    monkeypatch.chdir(tmp_path)
    for module, moment in (("own_lion", "exp_avg"), ("other_lion", "moment")):
        (tmp_path / f"{module}.py").write_text(LION.replace("{moment}", moment))
    return {
        module: {"name": "torch_gc", "optimizer": f"{module}.Mine", "lr": 0.01, "use_gc": True}
        for module in ("own_lion", "other_lion")
    }


def test_a_class_of_ones_own_beside_the_config(mine):
    assert trains_and_resumes(mine["own_lion"]) > 1e-3


ADAMW = {"name": "adamw_gc", "lr": 0.01, "use_gc": True}
SGD = {"name": "sgd_gc", "lr": 0.01, "momentum": 0.9}


@pytest.mark.parametrize(
    ("was", "now", "whose"),
    [
        (ADAMW, "own_lion", "exp_avg, exp_avg_sq, and Mine has betas, lr, weight_decay"),
        ("own_lion", SGD, "the tensors exp_avg, and SGD has"),
        ("own_lion", ADAMW, "the tensors exp_avg, and AdamW has amsgrad"),
        (
            "own_lion",
            "other_lion",
            "the tensors exp_avg, and Mine has betas, lr, weight_decay and the tensors moment",
        ),
    ],
    ids=["AdamW-Lion", "Lion-SGD", "Lion-AdamW", "own-own"],
)
def test_another_kind_of_state_is_refused(mine, was, now, whose):
    was, now = (mine.get(x, x) if isinstance(x, str) else x for x in (was, now))
    params, grads = problem(2)
    first = build(was, params)
    advance(first, grads)
    second = build(now, copies(params))
    with pytest.raises(ValueError, match=re.escape(whose)):
        second.set_classy_state(first.get_classy_state())


def test_shapes_are_those_of_the_parameters(mine):
    params, grads = problem(1, [(2, 2), (5,)])
    first = build(mine["own_lion"], params)
    advance(first, grads)
    second = build(mine["own_lion"], problem(0, [(300, 300), (5,)])[0])
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 has the shape \[2, 2\]"):
        second.set_classy_state(first.get_classy_state())


@pytest.mark.parametrize("value", ["x", -1.0, None, [0.1]])
def test_a_value_of_a_checkpoint_that_no_step_could_use_is_refused(value):
    params, grads = problem(1)
    optimizer = build(SGD, params)
    advance(optimizer, grads)
    state = copy.deepcopy(optimizer.get_classy_state())
    state["optim"]["param_groups"][0]["lr"] = value
    other = build(SGD, copies(params))
    with pytest.raises(
        ValueError, match=re.escape(f"lr of the checkpoint must be a number >= 0, not {value!r}")
    ):
        other.set_classy_state(state)


@pytest.mark.parametrize(
    "part", [[], {}, {"state": {}, "param_groups": [3]}, {"state": [], "param_groups": []}, None]
)
def test_what_is_no_state_of_an_optimizer_is_refused(part):
    optimizer = build(SGD, problem(0)[0])
    with pytest.raises(ValueError, match=r"cannot resume: .* is not the state of an optimizer"):
        optimizer.set_classy_state({"optim": part})


def test_nothing_is_logged_of_what_a_class_writes_into_its_groups(caplog):
    pytest.importorskip("optimi")
    trains_and_resumes(config("optimi", "AdamW", lr=0.01, triton=False))
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
