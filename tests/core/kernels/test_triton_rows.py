"""The Triton kernel without a GPU: run by Triton's interpreter, and compiled for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from classy_gc import core

pytest.importorskip("triton")


def run(*command, **environment):
    environment = {**os.environ, "CLASSY_GC_KERNELS": "triton", **environment}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_under_the_interpreter():
    file = Path(__file__).with_name("triton_interpreted.py")
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist")
    out = run("-m", "pytest", *options, str(file), TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert " passed" in out
    assert "skipped" not in out


COMPILE = """
import os, torch, triton
from triton.backends.compiler import GPUTarget
from classy_gc.core.kernels import triton_rows
from tests.core import cases

class Driver:
    def get_current_target(self): return GPUTarget("cuda", 80, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

class Compiled:
    def __getitem__(self, grid):
        return lambda *args, **options: binaries.append(
            row.warmup(*args, grid=grid, **options).asm["cubin"]
        )

binaries, row = [], triton_rows.row
triton_rows.row = Compiled()
triton.runtime.driver.set_active(Driver())
os.environ["TRITON_INTERPRET"] = "1"  # so that tensors on the CPU are taken
for param in cases.one_row_each(gc_loc=[False], implementations=[{"fused": True}]):
    cls, options = param.values
    weights, grads = cases.problem([(4, 3), (3,)], steps=1)
    cases.train(cls, weights, grads, **options, use_gc=True)
print(len(binaries), len(set(binaries)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the compiler is Linux's")
def test_it_compiles_for_a_gpu(tmp_path):
    root = str(Path(core.__file__).parents[2])
    out = run("-c", COMPILE, TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=root, TRITON_INTERPRET="0")
    assert out.split() == ["7", "6"]  # RAdam and PlainRAdam share one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_is_off_on_cuda_unless_asked_for(monkeypatch):
    p = torch.nn.Parameter(torch.ones(2, 3, device="cuda"))
    optimizer = core.Adam([p], use_gc=True)
    assert optimizer.step_paths() == ["GC around torch's own step: there is no kernel for cuda"]
    monkeypatch.setenv("CLASSY_GC_KERNELS", "triton")
    assert optimizer.step_paths() == ["one pass"]
