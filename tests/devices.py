"""The devices that the tests of the core run on: the CPU, and a GPU if there is one."""

import pytest
import torch

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]

on_every_device = pytest.mark.usefixtures("device")
