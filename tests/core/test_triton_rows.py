"""The Triton kernel against the plain path, on CPU tensors under Triton's interpreter."""

import json
import os
import subprocess
import sys

import pytest
import torch

TOLERANCE = {"torch.float32": 1e-6, "torch.bfloat16": 4e-2, "torch.float16": 2e-3}


@pytest.fixture(scope="module")
def differences():
    pytest.importorskip("triton")
    run = subprocess.run(
        [sys.executable, "-m", "tests.core.triton_rows_worker"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_kernel_gives_the_numbers_of_the_plain_path(differences, dtype):
    cases = {name: value for name, value in differences.items() if dtype in name}
    assert len(cases) >= 6
    assert {name: value for name, value in cases.items() if value > TOLERANCE[dtype]} == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_is_off_by_default_on_cuda():
    from classy_gc.core.centralization import KernelBatch, in_batches

    assert not isinstance(in_batches([torch.zeros(8, 8, device="cuda")])[0], KernelBatch)
