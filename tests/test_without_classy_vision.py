import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NEEDED_BY_CLASSY_VISION_ALONE = ("classy_vision", "fvcore", "iopath", "torchvision")
CORE = """
import torch
from classy_gc.core import AdamW, centralize_optimizer

weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
for optimizer in (
    AdamW([weight], lr=0.5, weight_decay=0, use_gc=True),
    centralize_optimizer(torch.optim.SGD([weight], lr=0.5)),
):
    (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
    optimizer.step()
    optimizer.zero_grad()  # first (1, 1) + (½, −½), then + (1, −1)
print([round(x, 4) for x in weight[0].tolist()])
"""
MMENGINE = """
import classy_gc.mmengine
from mmengine.registry import OPTIMIZERS

print(OPTIMIZERS.get("SGDGC").__module__)
"""
REST = """
import importlib
import classy_gc

for name in classy_gc.__all__:
    for get in (
        lambda: importlib.import_module(f"classy_gc.{name}"),
        lambda: getattr(classy_gc, name),
        lambda: exec(f"from classy_gc import {name}"),
    ):
        try:
            get()
        except ModuleNotFoundError as error:
            print(name, error)
print(hasattr(classy_gc, "no_such_name"))
"""
COMMAND = "import sys; from classy_gc.commands import main; sys.exit(main())"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python code in a process that finds every installed package except these."""
    packages = tmp_path_factory.mktemp("site-packages")
    for folder in filter(Path.is_dir, map(Path, sys.path)):
        for path in folder.iterdir() if folder.name.endswith("-packages") else ():
            if not (path.name.startswith(NEEDED_BY_CLASSY_VISION_ALONE) or path.suffix == ".pth"):
                (packages / path.name).unlink(missing_ok=True)
                (packages / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{packages}", "OMP_NUM_THREADS": "1"}

    def run(code, *arguments):
        return subprocess.run(
            [sys.executable, "-S", "-c", code, *arguments],  # without the site-packages there are
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_the_core_and_mmengine_work_and_the_rest_names_what_is_missing(run):
    result = run(CORE + MMENGINE + REST)
    assert (result.returncode, result.stderr) == (0, "")
    core, mmengine, *missing, unknown = result.stdout.splitlines()
    assert (core, mmengine, unknown) == ("[2.5, -0.5]", "classy_gc.core.sgd", "False")
    assert missing == [
        f"{name} No module named 'classy_vision'"
        for name in ("dataset", "hooks", "optim", "param_groups", "tasks")
        for _ in range(3)
    ]


def test_commands_that_need_it_say_so_in_one_line(run):
    assert run(COMMAND, "--help").returncode == 0
    result = run(COMMAND, "train", "--config_file", "digits_sgd_gc.json")
    assert result.returncode == 2
    assert result.stderr == "classy-gc train: error: No module named 'classy_vision'\n"
