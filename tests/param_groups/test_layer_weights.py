import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention
from torchvision.ops import DeformConv2d

from classy_gc.core import ineligible_reason
from classy_gc.param_groups import parameter_occurrences
from classy_gc.param_groups.kinds import no_layer_weight_reason


class RmsNorm2d(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))


class NormedLinear(nn.Linear):
    pass


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))


LAYERS = {
    "linear": (nn.Linear(4, 4), {"weight"}),
    "bilinear": (nn.Bilinear(2, 2, 4), {"weight"}),
    "a linear one with another name": (NormedLinear(4, 4), {"weight"}),
    "convolution": (nn.Conv2d(4, 4, 3), {"weight"}),
    "transposed": (nn.ConvTranspose1d(4, 4, 3), {"weight"}),
    "deformable": (DeformConv2d(4, 4, 3), {"weight"}),
    "embedding": (nn.Embedding(4, 4), {"weight"}),
    "bag": (nn.EmbeddingBag(4, 4), {"weight"}),
    "recurrent": (nn.LSTM(4, 4, proj_size=2), {"weight_ih_l0", "weight_hh_l0", "weight_hr_l0"}),
    "cell": (nn.GRUCell(4, 4), {"weight_ih", "weight_hh"}),
    "attention": (
        nn.MultiheadAttention(4, 2, kdim=2, vdim=2),
        {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"},
    ),
    "weight_norm": (
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        {"parametrizations.weight.original1"},
    ),
    "spectral_norm": (
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
        {"parametrizations.weight.original"},
    ),
    "old spectral_norm": (torch.nn.utils.spectral_norm(nn.Linear(4, 4)), {"weight_orig"}),
}
OTHERS = {
    "norm": (
        nn.LayerNorm([4, 4]),
        {"weight": "normalization: LayerNorm", "bias": "normalization: LayerNorm"},
    ),
    "RMSNorm": (nn.RMSNorm([4, 4]), {"weight": "normalization: RMSNorm"}),
    "norm by name": (RmsNorm2d(), {"weight": "normalization: RmsNorm2d"}),
    "tokens": (Tokens(), {"cls_token": "no layer: Tokens", "pos_embed": "no layer: Tokens"}),
    "bias of attention": (
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {"bias_k": "bias: MultiheadAttention", "bias_v": "bias: MultiheadAttention"},
    ),
    "bias table": (
        ShiftedWindowAttention(4, [2, 2], [0, 0], 2),
        {"relative_position_bias_table": "no layer: ShiftedWindowAttention"},
    ),
    "a bare parameter": (nn.ParameterList([torch.zeros(4, 4)]), {"0": "no layer: ParameterList"}),
}


def with_rows(module):
    """``{name: reason}`` of every parameter that GC would centralize."""
    root = nn.Sequential(nn.Sequential(module))
    return {
        p.full_name.removeprefix("0.0."): no_layer_weight_reason(p)
        for p in parameter_occurrences(root)
        if ineligible_reason(p.parameter) is None
    }


@pytest.mark.parametrize(("module", "names"), LAYERS.values(), ids=LAYERS)
def test_weights_of_layers(module, names):
    assert with_rows(module) == dict.fromkeys(names)


@pytest.mark.parametrize(("module", "reasons"), OTHERS.values(), ids=OTHERS)
def test_what_only_looks_like_one(module, reasons):
    found = with_rows(module)
    assert {name: reason for name, reason in found.items() if reason} == reasons
