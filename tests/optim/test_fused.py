"""Which parameters torch's fused kernels can step."""

import pytest
import torch

from classy_gc.optim.classy_gc_optimizer import fused_supported


@pytest.mark.parametrize(
    ("x", "supported"),
    [
        (torch.zeros(4, 3), True),
        (torch.zeros(3, 4).t(), True),
        (torch.zeros(()), True),
        (torch.zeros(0, 3), True),
        (torch.zeros(4, 3, dtype=torch.bfloat16), torch.__version__ >= (2, 14)),
        (torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last), True),
        (torch.zeros(8, 3)[2:5], True),
        (torch.zeros(8, 12)[3:4, :6], True),
        (torch.zeros(4, 6)[:, ::2], False),
        (torch.zeros(4, 1).expand(4, 3), False),
        (torch.zeros(4, 3, dtype=torch.complex64), False),
        (torch.zeros(4, 3, dtype=torch.int64), False),
    ],
)
def test_fused_supported(x, supported):
    assert fused_supported(x) is supported
