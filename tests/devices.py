"""Where the tests of the core run: a GPU, where there is one, costs no test of its own."""

import pytest
import torch

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]

on_every_device = pytest.mark.usefixtures("device")
