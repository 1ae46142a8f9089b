import re

import pytest
from classy_vision.models import build_model
from classy_vision.optim import build_optimizer
from torch import nn

from classy_gc.param_groups import build_param_group_builder, build_param_groups


def rates(model, loss=None, **fields):
    builder = build_param_group_builder({"name": "layer_decay", **fields})
    optimizer = build_optimizer({"name": "adamw_gc", "lr": 1.0, "weight_decay": 0.5})
    groups = build_param_groups(builder, model, optimizer, loss)
    return {
        name: (
            g["lr"](0) if "lr" in g else 1.0,
            g["weight_decay"](0) if "weight_decay" in g else 0.5,
        )
        for g in groups
        for name in g["param_names"]
    }


def vit(**changes):
    head = {"name": "vision_transformer_head", "unique_id": "h", "num_classes": 4, "in_plane": 8}
    config = {"name": "vision_transformer", "image_size": 8, "patch_size": 4, "num_layers": 11}
    config |= {"num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    return build_model({**config, "heads": [{**head, "fork_block": "trunk_output"}], **changes})


def resnet(name="resnet", **changes):
    head = {"name": "fully_connected", "unique_id": "h", "num_classes": 4, "fork_block": "block1-1"}
    config = {"name": name, "num_blocks": [1, 2], "small_input": True, "init_planes": 16}
    return build_model({**config, "heads": [{**head, "in_plane": 128}], **changes})


def by_pattern(got, layers):
    """The rate of the parameters that match each pattern; each parameter matches exactly one."""
    result = {}
    for name, (rate, _) in got.items():
        (pattern,) = (p for p in layers if re.match(p, name))
        result.setdefault(pattern, set()).add(rate)
    return result


@pytest.mark.parametrize("conv_stem", [False, True], ids=["", "conv stem"])
def test_vision_transformer(conv_stem):
    stem = [{"kernel": 3, "stride": 4, "out_channels": 4}] if conv_stem else None
    got = rates(vit(conv_stem_layers=stem), decay=0.5)
    layers = ["conv_proj|class_token|encoder.pos_embedding"]
    layers += [rf"encoder\.layers\.layer_{i}\." for i in range(11)]  # 1 is no prefix of 10
    layers += [r"encoder\.ln|_heads\."]
    assert by_pattern(got, layers) == {p: {0.5 ** (12 - i)} for i, p in enumerate(layers)}


@pytest.mark.parametrize("name", ["resnet", "resnext"])
def test_resnet(name):
    changes = {"base_width_and_cardinality": [4, 8]} if name == "resnext" else {}
    got = rates(resnet(name, **changes), decay=0.1, loss=nn.Linear(1, 1))
    blocks = [rf"blocks\.{block}\." for block in (r"0\.block0-0", r"1\.block1-0", r"1\.block1-1")]
    layers = ["initial_block", *blocks, r"_heads|loss\."]
    assert by_pattern(got, layers) == {p: {0.1 ** (4 - i)} for i, p in enumerate(layers)}


def test_the_rules_of_paramwise_go_on_top():
    model = vit(num_layers=1)
    keys = {"class_token": {"lr_mult": 3}}
    got = rates(model, decay=0.5, norm_decay_mult=0, bias_lr_mult=2, custom_keys=keys)
    assert got["encoder.layers.layer_0.ln_1.bias"] == (0.5, 0)
    assert got["encoder.layers.layer_0.mlp.linear_1.bias"] == (1.0, 0.5)
    assert got["class_token"] == (0.75, 0.5)
    assert got["conv_proj.weight"] == (0.25, 0.5)


def test_one_is_the_same_rate_for_all():
    assert {rate for rate, _ in rates(resnet(), decay=1).values()} == {1.0}


@pytest.mark.parametrize("decay", [0, -1, 1.5, "0.5", None, True])
def test_a_decay_that_is_none(decay):
    with pytest.raises(ValueError, match=r"'layer_decay': decay must be a number in \(0, 1\]"):
        rates(resnet(), decay=decay)


def test_other_models_are_refused():
    mlp = build_model({"name": "mlp", "input_dim": 4, "output_dim": 2, "hidden_dims": [4]})
    message = r"'layer_decay' knows the layers of vision_transformer .*resnet50.*, not of MLP"
    with pytest.raises(ValueError, match=message):
        rates(mlp)
    with pytest.raises(
        ValueError, match="'decya' in param_groups 'layer_decay', did you mean 'dec"
    ):
        rates(resnet(), decya=0.5)
