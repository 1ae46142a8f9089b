import pytest
from torch import nn

from classy_gc.param_groups.kinds import is_depthwise, is_norm, kind

TIMM = ["RmsNorm", "RmsNorm2d", "LayerNorm", "LayerNorm2d", "GroupNorm", "GroupNorm1", "SimpleNorm"]
TIMM += ["BatchNormAct2d", "LayerNormAct2d", "EvoNorm2dB0", "FilterResponseNormTlu2d"]


@pytest.mark.parametrize("name", TIMM)
def test_norm_layers_of_timm(name):
    layers = pytest.importorskip("timm.layers")
    module = getattr(layers, name)(*(8, 2) if name == "GroupNorm" else (8,))
    assert is_norm(module)
    by_name = not isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d))
    assert kind(module) == f"{name}, norm" + " by its name" * by_name


def test_parts_of_timm_that_are_none():
    layers = pytest.importorskip("timm.layers")
    for module in (layers.Mlp(4), layers.StdConv2d(4, 4, 3), layers.LayerScale(4)):
        assert not is_norm(module)


@pytest.mark.parametrize(
    "module",
    [nn.BatchNorm3d(2), nn.SyncBatchNorm(2), nn.InstanceNorm1d(2), nn.LayerNorm(2), nn.RMSNorm(2)],
    ids=kind,
)
def test_norm_layers_of_torch(module):
    assert is_norm(module)


NAMES = {
    **dict.fromkeys(["RMSNorm", "LlamaRMSNorm", "T5LayerNorm", "Norm", "norm_2d", "L2Norm"], True),
    **dict.fromkeys(
        ["SurfaceNormalHead", "Enormous", "Normalize", "NormedHead", "Layernorms"], False
    ),
}


@pytest.mark.parametrize(("name", "norm"), NAMES.items())
def test_whole_words_of_the_name_count(name, norm):
    module = type(name, (nn.Module,), {})()
    assert is_norm(module) is norm
    assert kind(module) == name + ", norm by its name" * norm


DEPTHWISE = [((4, 8), 4, True), ((4, 4), 4, True)]
NOT_DEPTHWISE = [((1, 8), 1, False), ((4, 8), 2, False), ((4, 8), 1, False)]


@pytest.mark.parametrize("layer", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize(("channels", "groups", "depthwise"), DEPTHWISE + NOT_DEPTHWISE)
def test_depthwise_needs_a_group_a_channel_and_more_than_one(layer, channels, groups, depthwise):
    module = layer(*channels, 3, groups=groups)
    assert is_depthwise(module) is depthwise
    assert kind(module) == layer.__name__ + ", depthwise" * depthwise
