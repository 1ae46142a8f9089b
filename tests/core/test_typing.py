"""What a type checker and an IDE see of the optimizers."""

import os
import subprocess
import sys
from pathlib import Path

import classy_gc
from classy_gc import core

USER = """
import torch
from classy_gc.core import {cls}

weight = torch.nn.Parameter(torch.ones(2, 3))
{cls}([weight], lr=1, use_gc=True)
{cls}([weight], lrr=1, use_gc=True)
"""
CLASSES = [name for name in core.__all__ if name[0].isupper() and name != "CentralizedOptimizer"]


def test_mypy_knows_every_option(tmp_path):
    for cls in CLASSES:
        (tmp_path / f"{cls}.py").write_text(USER.format(cls=cls))
    # Reading torch takes mypy 13 of 14 seconds, and tells nothing about our options.
    flags = ["--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *(f"{cls}.py" for cls in CLASSES)],
        env={**os.environ, "MYPYPATH": str(Path(classy_gc.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    wrong = [line for line in done.stdout.splitlines() if "error:" in line]
    assert sorted(line.split(":")[0] for line in wrong) == sorted(f"{cls}.py" for cls in CLASSES)
    assert all('Unexpected keyword argument "lrr"' in line for line in wrong), done.stdout
