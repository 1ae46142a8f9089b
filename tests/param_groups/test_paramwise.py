import copy
import itertools
import logging
import re

import pytest
import torch
from classy_vision.models import build_model
from classy_vision.optim import ClassyOptimizer, build_optimizer, build_optimizer_schedulers
from torch import nn
from torchvision.ops import DeformConv2d

from classy_gc.param_groups import build_param_group_builder, build_param_groups

LR, DECAY = 0.5, 0.25


class DeformConvPack(DeformConv2d):
    def __init__(self):
        super().__init__(4, 4, 3)
        self.conv_offset = nn.Conv2d(4, 18, 3)


class ScaleNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


class OneMore(ScaleNorm):
    """A norm layer, told by the name of its base class."""


class NormedLinear(nn.Linear):
    """No norm layer, whatever its name says."""


class EveryKind(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.matrix = nn.Parameter(torch.ones(4, 4))
        self.conv = nn.Conv2d(4, 8, 3)
        self.dwconv = nn.Conv2d(4, 8, 3, groups=4)
        self.fc = nn.Linear(4, 4)
        self.bn = nn.BatchNorm2d(4)
        self.inorm = nn.InstanceNorm2d(4, affine=True)
        self.gn = nn.GroupNorm(2, 4)
        self.ln = nn.LayerNorm(4)
        self.dcn = DeformConvPack()
        self.conv_offset = nn.Conv2d(4, 4, 1)  # a name only
        self.gray = nn.Conv2d(1, 4, 3)  # one group: not depthwise
        self.rms = nn.RMSNorm(4)
        self.scale_norm = ScaleNorm()
        self.one_more = OneMore()
        self.normed = NormedLinear(4, 4)


NORMS = [f"{norm}.{name}" for norm in ("bn", "inorm", "gn", "ln") for name in ("weight", "bias")]
NORMS += ["rms.weight", "scale_norm.weight", "one_more.weight"]
PLAIN_BIASES = [f"{name}.bias" for name in ("conv", "fc", "dcn", "conv_offset", "gray", "normed")]
OFFSETS = ["dcn.conv_offset.weight", "dcn.conv_offset.bias"]


def group(model, fields, optimizer=None, *, bn_weight_decay=True, num_epochs=1, **kwargs):
    config = {"name": "sgd_gc", "lr": LR, "weight_decay": DECAY, **(optimizer or {})}
    config["num_epochs"] = num_epochs
    schedules = build_optimizer_schedulers(config)
    optimizer = build_optimizer(copy.deepcopy(config))
    builder = build_param_group_builder({"name": "paramwise", **fields})
    common = {"schedules": schedules, "num_epochs": num_epochs, "bn_weight_decay": bn_weight_decay}
    return build_param_groups(builder, model, optimizer, **common, **kwargs)


def options(*args, where=0.0, **kwargs):
    """``{name of a parameter: {option: value}}``, without the optimizer's own options."""
    return {
        name: {k: v(where) for k, v in g.items() if k not in ("params", "param_names")}
        for g in group(*args, **kwargs)
        for name in g["param_names"]
    }


@pytest.mark.parametrize(
    ("field", "option", "names"),
    [
        ("bias_lr_mult", "lr", [*PLAIN_BIASES, "dwconv.bias"]),
        ("dcn_offset_lr_mult", "lr", OFFSETS),
        ("bias_decay_mult", "weight_decay", PLAIN_BIASES),
        ("norm_decay_mult", "weight_decay", NORMS),
        ("dwconv_decay_mult", "weight_decay", ["dwconv.weight", "dwconv.bias"]),
        ("flat_decay_mult", "weight_decay", ["scale", "dwconv.bias", *PLAIN_BIASES, *NORMS]),
    ],
)
@pytest.mark.parametrize("factor", [0, 0.5, 3])
def test_one_field(field, option, names, factor):
    base = {"lr": LR, "weight_decay": DECAY}[option]
    got = options(EveryKind(), {field: factor})
    assert got.keys() == dict(EveryKind().named_parameters()).keys()
    assert {name for name, own in got.items() if own} == set(names)
    assert all(got[name] == {option: factor * base} for name in names)
    assert all(not own for own in options(EveryKind(), {field: None}).values())
    assert len(group(EveryKind(), {field: factor})) == 2


def test_all_fields_together():
    fields = {
        "bias_lr_mult": 2,
        "dcn_offset_lr_mult": 3,
        "bias_decay_mult": 4,
        "norm_decay_mult": 5,
        "flat_decay_mult": 6,
        "dwconv_decay_mult": 7,
    }
    none = (1, 1)
    expected = {
        **dict.fromkeys(NORMS, (1, 5)),
        **dict.fromkeys(PLAIN_BIASES, (2, 4)),
        **dict.fromkeys(OFFSETS, (3, 1)),
        "scale": (1, 6),
        "dwconv.weight": (1, 7),
        "dwconv.bias": (2, 7),
        **dict.fromkeys(("matrix", "conv.weight", "fc.weight", "dcn.weight"), none),
        **dict.fromkeys(("conv_offset.weight", "gray.weight", "normed.weight"), none),
    }
    got = options(EveryKind(), fields)
    assert {
        name: (own.get("lr", LR) / LR, own.get("weight_decay", DECAY) / DECAY)
        for name, own in got.items()
    } == expected
    # Without a rule for norm layers, flat_decay_mult holds for them, and bias rules do not.
    got = options(EveryKind(), {"bias_decay_mult": 4, "flat_decay_mult": 6})
    assert {got[name]["weight_decay"] for name in NORMS} == {6 * DECAY}


FIELDS = ["bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult"]
FIELDS += ["dwconv_decay_mult", "custom_keys"]


EVERY_SET = [
    [field for field, wanted in zip(FIELDS, row, strict=True) if wanted]
    for row in itertools.product([False, True], repeat=len(FIELDS))
]


@pytest.mark.parametrize("given", EVERY_SET, ids=str)
def test_it_is_mmengines_but_for_what_is_documented(given):
    mmengine = pytest.importorskip("mmengine.optim")
    keys = {"conv": {"lr_mult": 2}, "conv.b": {"lr_mult": 3, "decay_mult": 0}}
    values = {field: i + 2 for i, field in enumerate(FIELDS)} | {"custom_keys": keys}
    fields = {field: values[field] for field in given}
    model = EveryKind()
    del model.dcn  # MMEngine knows it only through MMCV
    names = {id(p): name for name, p in model.named_parameters()}
    base = {"lr": LR, "weight_decay": DECAY}
    constructor = mmengine.DefaultOptimWrapperConstructor(
        {"type": "OptimWrapper", "optimizer": {"type": "SGD", **base}},
        paramwise_cfg={"bypass_duplicate": True, **fields},
    )
    theirs = {
        names[id(p)]: {k: g[k] for k in base}
        for g in constructor(model).optimizer.param_groups
        for p in g["params"]
    }
    ours = {name: base | own for name, own in options(model, fields).items()}
    # MMEngine knows fewer norm layers, and takes a convolution of one channel for a depthwise one.
    documented = {n for n in ours if n.split(".")[0] in ("rms", "scale_norm", "one_more", "gray")}
    # bias_decay_mult reaches the biases of norm and depthwise layers there, before their own rules
    # but for norm_decay_mult.
    if "bias_decay_mult" in fields:
        biases = set() if "custom_keys" in fields else {"dwconv.bias"}
        if "norm_decay_mult" not in fields:
            biases |= {name for name in NORMS if name.endswith("bias")}
        assert {theirs[name]["weight_decay"] for name in biases} <= {3 * DECAY}
        assert not {ours[name]["weight_decay"] for name in biases} & {3 * DECAY}
        documented |= biases
    same = ours.keys() - documented
    assert {n: ours[n] for n in same} == {n: theirs[n] for n in same}


def test_the_longest_custom_key_decides_and_nothing_else():
    keys = {
        "conv": {"lr_mult": 2},
        "conv.b": {"lr_mult": 3},  # longer
        "onv.w": {"lr_mult": 5},  # as long as the next, and later in the alphabet
        "nv.we": {"lr_mult": 4},
        ".scale": {"lr_mult": 6},  # of the model itself
        "bn": {},
    }
    fields = {"norm_decay_mult": 0, "bias_lr_mult": 9, "bias_decay_mult": 0}
    got = options(EveryKind(), {**fields, "custom_keys": keys})
    factors = {"conv.weight": 4, "conv.bias": 3, "scale": 6, "dwconv.weight": 4, "dwconv.bias": 3}
    assert {name: got[name] for name in factors} == {n: {"lr": f * LR} for n, f in factors.items()}
    assert got["bn.weight"] == got["bn.bias"] == {}
    assert got["gn.bias"] == {"weight_decay": 0}
    assert got["fc.bias"] == {"lr": 9 * LR, "weight_decay": 0}


OPTIMIZERS = ["sgd", "adam", "adamw", "rmsprop", "rmsprop_tf"]


@pytest.mark.parametrize("name", [*OPTIMIZERS, *(f"{name}_gc" for name in OPTIMIZERS), "radam_gc"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["", "wrapped"])
def test_multipliers_find_the_options_of_every_optimizer(name, wrapped):
    """Also without a value in the config: a config's default may differ from the constructor's."""
    config = {"name": name}
    if wrapped and name.endswith("_gc"):
        config = {"name": "zero", "base_optimizer": config}
    elif wrapped:
        config = {"name": "gc", "base_optimizer": config}
    base = build_optimizer({"name": name, "num_epochs": 1})
    base.set_param_groups([torch.zeros(1, requires_grad=True)])
    lr, decay = base.param_groups[0]["lr"], base.param_groups[0]["weight_decay"]
    for given in ({}, {"lr": 0.3, "weight_decay": 0.2}):
        config.get("base_optimizer", config).update(given)
        optimizer = build_optimizer(copy.deepcopy(config))
        model = nn.ModuleDict({"fc": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
        keys = {"fc": {"lr_mult": 0.1, "decay_mult": 0.5}}
        builder = build_param_group_builder({"name": "paramwise", "custom_keys": keys})
        if not decay and not given:
            with pytest.raises(ValueError, match="multiplies 'weight_decay', which is 0 in opti"):
                build_param_groups(builder, model, optimizer)
            continue
        slow, rest = build_param_groups(builder, model, optimizer)
        assert slow["lr"](0) == 0.1 * given.get("lr", lr)
        assert slow.get("weight_decay", lambda where: decay)(0) == 0.5 * given.get(
            "weight_decay", decay
        )
        assert set(rest) == {"params", "param_names"}
        if config["name"] != "zero":  # which needs a process group
            for g in (slow, rest):
                del g["param_names"]
            optimizer.set_param_groups([slow, rest])
            assert optimizer.param_groups[0]["lr"] == 0.1 * given.get("lr", lr)
            assert optimizer.param_groups[1]["lr"] == given.get("lr", lr)


@pytest.mark.parametrize(
    "config", [{"name": "sgd_gc"}, {"name": "gc", "base_optimizer": {"name": "sgd", "lr": 1.0}}]
)
def test_gc_for_some_parameters_only(config):
    model = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False), "b": nn.Linear(2, 1, bias=False)})
    optimizer = build_optimizer({**config, "use_gc": True})
    keys = {"b": {"use_gc": False}}
    builder = build_param_group_builder({"name": "paramwise", "custom_keys": keys})
    groups = build_param_groups(builder, model, optimizer)
    for g in groups:
        del g["param_names"]
    optimizer.set_param_groups(groups)
    before = [p.clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.tensor([[1.0, 3.0]])
    optimizer.step(where=0)
    lr = optimizer.options_view.lr
    steps = [(a - b) / lr for a, b in zip(before, model.parameters(), strict=True)]
    torch.testing.assert_close(steps, [torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 3.0]])])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.ln = nn.LayerNorm([4, 4])
        self.flat_ln = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2)


LN = ("ln.weight", "ln.bias")


@pytest.mark.parametrize(
    ("fields", "off"),
    [
        ({}, ()),
        ({"gc_layer_weights_only": False}, ()),
        ({"gc_layer_weights_only": True}, ("token", *LN)),
        ({"gc_layer_weights_only": True, "norm_decay_mult": 0}, ("token", *LN)),
        ({"gc_layer_weights_only": True, "custom_keys": {"ln": {"lr_mult": 2}}}, ("token", *LN)),
        ({"gc_layer_weights_only": True, "custom_keys": {"ln": {"use_gc": True}}}, ("token",)),
        (
            {"gc_layer_weights_only": True, "custom_keys": {"in_proj": {"use_gc": False}}},
            ("token", *LN, "attention.in_proj_weight", "attention.in_proj_bias"),
        ),
    ],
)
@pytest.mark.parametrize(
    "gc", [True, {"name": "step", "values": [0, 1], "num_epochs": 2}], ids=["", "scheduled"]
)
def test_gc_for_weights_of_layers_only(fields, off, gc):
    given = {"use_gc": gc} if gc is True else {"param_schedulers": {"use_gc": gc}}
    got = options(Encoder(), fields, {"name": "adamw_gc", **given}, num_epochs=2, where=0.75)
    assert {name for name, own in got.items() if not own.get("use_gc", True)} == set(off)


def test_gc_for_weights_of_layers_only_makes_few_groups():
    assert len(group(Encoder(), {"gc_layer_weights_only": True}, {"use_gc": True})) == 2
    # GC is off everywhere, so one group will do.
    assert len(group(Encoder(), {"gc_layer_weights_only": True})) == 1


def test_any_option_of_the_optimizer_goes_to_the_group():
    own = {"use_gc": False, "betas": [0.5, 0.75], "eps": 1e-3, "amsgrad": True}
    model = EveryKind()
    optimizer = build_optimizer({"name": "adamw_gc", "use_gc": True})
    builder = build_param_group_builder({"name": "paramwise", "custom_keys": {"conv": own}})
    groups = build_param_groups(builder, model, optimizer)
    names = [g.pop("param_names") for g in groups]
    optimizer.set_param_groups(groups)
    for at, g in zip(names, optimizer.param_groups, strict=True):
        changed = "conv.weight" in at
        assert g["use_gc"] is not changed
        assert g["betas"] == ((0.5, 0.75) if changed else (0.9, 0.999))
        assert (g["eps"], g["amsgrad"]) == ((1e-3, True) if changed else (1e-8, False))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(where=0)
    state = optimizer.optimizer.state
    assert "max_exp_avg_sq" in state[model.conv.weight]
    assert "max_exp_avg_sq" not in state[model.fc.weight]


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_multipliers_multiply_the_schedule_at_every_step(interval):
    def schedule(name, **values):
        return {"name": name, "update_interval": interval, **values}

    schedulers = {
        "lr": schedule("cosine", start_value=0.8, end_value=0.0),
        "weight_decay": schedule("linear", start_value=0.1, end_value=0.4),
    }
    own = schedule("step", values=[0.3, 0.2, 0.1, 0.05])
    keys = {
        "slow": {"lr_mult": 0.1, "decay_mult": 0.5},
        "head": {"lr": own, "lr_mult": 2},
        "fixed": {"lr": 0.7},
    }
    config = {"name": "sgd_gc", "num_epochs": 4, "param_schedulers": schedulers}
    names = ("slow", "head", "fixed", "rest")
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in names})
    optimizer = build_optimizer(config)
    builder = build_param_group_builder({"name": "paramwise", "custom_keys": keys})
    schedules = build_optimizer_schedulers(config)
    groups = build_param_groups(builder, model, optimizer, None, schedules, 4)
    assert [g.pop("param_names")[0] for g in groups] == [f"{name}.weight" for name in names]
    optimizer.set_param_groups(groups)
    stepped = [0.3, 0.2, 0.1, 0.05]
    seen = set()
    for step in range(16):
        where = step / 16
        if step % 4 == 0 and step:
            optimizer.on_epoch(where)
        optimizer.step(where=where)
        slow, head, fixed, rest = (dict(g) for g in optimizer.param_groups)
        at = where if interval == "step" else (step // 4) / 4
        assert rest["lr"] == schedules["lr"](at)
        assert rest["weight_decay"] == schedules["weight_decay"](at)
        assert slow["lr"] == pytest.approx(0.1 * rest["lr"])
        assert slow["weight_decay"] == pytest.approx(0.5 * rest["weight_decay"])
        assert head["lr"] == pytest.approx(2 * stepped[int(4 * at)])
        assert fixed["lr"] == 0.7
        assert head["weight_decay"] == fixed["weight_decay"] == rest["weight_decay"]
        seen.add(slow["lr"])
    assert len(seen) == (16 if interval == "step" else 4)


@pytest.mark.parametrize("bn_weight_decay", [False, True])
@pytest.mark.parametrize(
    ("fields", "decays"),
    [
        ({}, None),
        ({"bias_lr_mult": 2}, None),
        ({"norm_decay_mult": 0.5}, 0.5),
        ({"norm_decay_mult": 1}, 1),
        ({"custom_keys": {"bn": {"lr_mult": 2}}}, None),
        ({"custom_keys": {"bn": {"lr_mult": 2}}, "norm_decay_mult": 0.5}, 1),
        ({"custom_keys": {"bn": {"decay_mult": 0.5}}}, 0.5),
        ({"custom_keys": {"bn": {"lr_mult": 2, "bn_weight_decay": False}}}, 0),
    ],
)
def test_bn_weight_decay_counts_where_no_rule_speaks_of_norm_layers(
    fields, decays, bn_weight_decay
):
    got = options(EveryKind(), fields, bn_weight_decay=bn_weight_decay)
    expected = float(bn_weight_decay) if decays is None else decays
    for name in ("bn.weight", "bn.bias"):
        assert got[name].get("weight_decay", DECAY) == expected * DECAY
    assert got["gn.weight"].get("weight_decay") == {0.5: 0.125}.get(fields.get("norm_decay_mult"))


def test_nesterov_needs_momentum_in_a_group_too():
    fields = {"custom_keys": {"conv": {"nesterov": True}}}
    with pytest.raises(ValueError, match=r"'conv.weight'.*nesterov must be false where"):
        group(EveryKind(), fields)
    got = options(EveryKind(), fields, {"momentum": 0.9})
    assert got["conv.weight"]["nesterov"] is True


def test_resnet50_has_few_groups():
    heads = [{"name": "fully_connected", "unique_id": "h", "num_classes": 10}]
    heads[0] |= {"fork_block": "block3-2", "in_plane": 2048}
    model, same = (build_model({"name": "resnet50", "heads": heads}) for _ in range(2))
    fields = {"norm_decay_mult": 0.0, "bias_lr_mult": 2.0}
    for bn_weight_decay in (False, True):
        groups = group(model, fields, bn_weight_decay=bn_weight_decay)
        assert [len(g["params"]) for g in groups] == [54, 1, 106]
    again = group(same, fields)
    assert [g["param_names"] for g in groups] == [g["param_names"] for g in again]


def test_rules_that_come_to_the_same_share_a_group():
    keys = {"conv": {"weight_decay": 0}, "fc": {"decay_mult": 0.0}, "matrix": {"lr_mult": 1}}
    fields = {"custom_keys": keys, "norm_decay_mult": 0}
    assert len(group(EveryKind(), fields, bn_weight_decay=False)) == 2
    own = {"lr": {"name": "linear", "start_value": 1, "end_value": 0}}
    assert len(group(EveryKind(), {"custom_keys": {"conv": own, "fc": own}})) == 2
    keys = {"custom_keys": {"conv": own, "bn": own}}
    assert len(group(EveryKind(), keys, {"weight_decay": 0}, bn_weight_decay=False)) == 2


def shared():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    return model


def test_a_shared_parameter(caplog):
    with pytest.raises(ValueError, match=r"more than one parameter group: 'b.weight' is"):
        group(shared(), {})
    # The same in torch, with each parameter in its own group.
    model = shared()
    with pytest.raises(ValueError, match="more than one parameter group"):
        torch.optim.SGD([{"params": [m.weight]} for m in model.values()], lr=1)
    got = options(shared(), {"bypass_duplicate": True, "custom_keys": {"b": {"lr_mult": 2}}})
    assert list(got) == ["a.weight", "a.bias", "b.bias"]
    assert got["a.weight"] == {}
    assert got["b.bias"] == {"lr": 2 * LR}
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["param_groups 'paramwise': b.weight is a.weight, and is left out"]


def test_frozen_parameters_are_left_out(caplog):
    model = EveryKind()
    model.conv.weight.requires_grad = False
    model.matrix.requires_grad = False
    fields = {"custom_keys": {"matrix": {"lr_mult": 2}, "dw": {}, "dwconv": {"lr_mult": 3}}}
    got = options(model, fields)
    assert set(got) == {n for n, p in model.named_parameters() if p.requires_grad}
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [w.split(" of ")[0] for w in warnings] == ["custom_keys 'matrix'", "custom_keys 'dw'"]
    with pytest.raises(ValueError, match="nothing to train"):
        group(model.requires_grad_(False), {})


def test_the_loss_is_trained_too():
    loss = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    fields = {"custom_keys": {"loss.0": {"lr_mult": 2}}}
    got = options(nn.Linear(2, 2), fields, loss=loss, bn_weight_decay=False)
    assert list(got) == ["weight", "bias", *(f"loss.{n}" for n, _ in loss.named_parameters())]
    assert got["loss.0.bias"] == {"lr": 2 * LR}
    assert got["loss.1.weight"] == {"weight_decay": 0}
    with pytest.raises(ValueError, match=r"'loss.weight' is 'weight'"):
        group(fc := nn.Linear(2, 2), {}, loss=fc)


class Rprop(ClassyOptimizer):
    """A ClassyOptimizer without weight decay."""

    def prepare(self, param_groups):
        self.optimizer = torch.optim.Rprop(param_groups, lr=0.1)


def key(**own):
    return {"custom_keys": {"fc": own}}


LINEAR = {"name": "linear", "start_value": 1, "end_value": 0}


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"bias_lr_mul": 2}, ["'bias_lr_mul'", "'paramwise'", "did you mean 'bias_lr_mult'?"]),
        ({"bias_lr_mult": -1}, ["bias_lr_mult", "a number >= 0 or null", "-1"]),
        ({"norm_decay_mult": "0"}, ["norm_decay_mult", "'0'"]),
        ({"dwconv_decay_mult": True}, ["dwconv_decay_mult", "True"]),
        ({"bypass_duplicate": 1}, ["bypass_duplicate", "true or false", "1"]),
        ({"gc_layer_weights_only": None}, ["gc_layer_weights_only", "true or false", "None"]),
        ({"custom_keys": ["fc"]}, ["custom_keys", "an object", "['fc']"]),
        ({"custom_keys": {"fc": 0.1}}, ["custom_keys", "an object", "'fc': 0.1"]),
        (
            {"custom_keys": {"bm.wieght": {"lr_mult": 2}}},
            ["'bm.wieght'", "matches no parameter", "'bn.weight'"],
        ),
        (key(lr_mul=2), ["'lr_mul'", "'fc.weight'", "'sgd_gc'", "did you mean 'lr_mult'?"]),
        (key(lr_mult=None), ["'fc.weight'", "lr_mult", "None"]),
        (key(lr_mult=LINEAR), ["lr_mult must be a number >= 0", "linear"]),
        (key(use_gc="no"), ["use_gc must be true or false", "'no'"]),
        (key(use_cg=True), ["'use_cg'", "did you mean 'use_gc'?"]),
        (key(momentum=1.5), ["momentum must be a number in [0, 1)", "1.5"]),
        (key(betas=[0.9, 0.9]), ["'betas'", "'sgd_gc'"]),
        (key(larc_config={}), ["'larc_config'"]),
        (key(lr={**LINEAR, "name": "liner"}), ["'fc.weight'", "lr", "'linear'?"]),
        (key(lr={**LINEAR, "strat_value": 1}), ["lr", "did you mean 'start_value'?"]),
        (key(lr={**LINEAR, "end_value": -1}), ["lr", "must be a number >= 0", "-"]),
        (key(lr={"value": 1}), ["lr", "'name'"]),
        (key(nesterov=LINEAR), ["nesterov must be true or false"]),
    ],
)
def test_refused(fields, fragments):
    before = copy.deepcopy(fields)
    with pytest.raises(ValueError, match="param_groups 'paramwise'") as caught:
        group(EveryKind(), fields)
    assert fields == before
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fields", "fragments"),
    [
        ("sgd", key(use_gc=False), ["'use_gc'", "'fc.weight'", "optimizer 'sgd'", "known:"]),
        ("sgd", {"gc_layer_weights_only": True}, ["'use_gc'", "gc_layer_weights_only", "'sgd'"]),
        ("adam", key(momentum=0.5), ["'momentum'", "optimizer 'adam'"]),
        ("sgd", key(lr=-1), ["lr must be a number >= 0, not -1"]),
        ("adam", key(betas=[0.5]), ["betas must be a list of two numbers"]),
        (Rprop, key(decay_mult=2), ["decay_mult of options", "'weight_decay'", "etas"]),
        (Rprop, {"norm_decay_mult": 2}, ["norm_decay_mult", "'weight_decay'", "'Rprop'", "etas"]),
    ],
)
def test_what_the_optimizer_lacks_is_refused(name, fields, fragments):
    optimizer = build_optimizer({"name": name}) if isinstance(name, str) else name()
    builder = build_param_group_builder({"name": "paramwise", **fields})
    with pytest.raises(ValueError, match=re.escape(fragments[0])) as caught:
        build_param_groups(builder, EveryKind(), optimizer)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_an_optimizer_without_weight_decay_needs_none():
    builder = build_param_group_builder({"name": "paramwise", "bias_lr_mult": 2})
    groups = build_param_groups(builder, EveryKind(), Rprop())
    assert [sorted(g) for g in groups] == [
        ["param_names", "params"],
        ["lr", "param_names", "params"],
    ]


def test_momentum_and_betas_are_one():
    with pytest.raises(ValueError, match="momentum drives the first of betas"):
        group(EveryKind(), key(betas=[0.5, 0.9], momentum=0.5), {"name": "adam_gc"})
