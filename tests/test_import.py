"""What ``import classy_gc`` changes in its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# Every attribute of every class and module of Classy Vision, by where it is; registries change.
SEEN = """
import inspect, pkgutil, sys, warnings
warnings.simplefilter("ignore")
import classy_vision, classy_vision.dataset, classy_vision.hooks, classy_vision.optim
import classy_vision.tasks, classy_vision.optim.param_scheduler, classy_vision.models
import classy_vision.trainer, classy_vision.heads, classy_vision.meters, classy_vision.losses

def seen():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != "classy_vision":
            continue
        for key, value in list(vars(module).items()):
            if "REGISTRY" not in key and not inspect.ismodule(value):
                found[name, key] = id(value)
            if inspect.isclass(value) and value.__module__.startswith("classy_vision."):
                found |= {(value, k): id(v) for k, v in vars(value).items() if k != "_abc_impl"}
    return found

before = seen()
assert len(before) > 1000
import classy_gc
after = seen()
owners = {owner for owner, _ in before}
changed = [key for key in after if key[0] in owners and before.get(key) != after[key]]
changed += before.keys() - after.keys()
assert not changed, changed
"""


# What ``import torch`` does not import by itself, and takes seconds.
SLOW = ("classy_vision", "torchvision", "tensorboard", "torch._dynamo", "triton", "sympy")
EXTRAS = ("sklearn", "matplotlib", "progressbar", "fairscale", "tensorboard", "wandb", "mlflow")
CORE = f"""
import sys
sys.modules |= dict.fromkeys({EXTRAS})  # importing one of them fails
import classy_gc.core
assert not {{*{SLOW}}} & {{name for name, module in sys.modules.items() if module}}
"""
REGISTERED = """
import sys
import classy_vision.dataset, classy_vision.hooks, classy_vision.optim, classy_vision.tasks
import classy_gc.commands.train
assert "training_curves" in classy_vision.hooks.HOOK_REGISTRY
assert "digits" in classy_vision.dataset.DATASET_REGISTRY
assert "gc_monitor" in classy_vision.hooks.HOOK_REGISTRY
assert "adamw_gc" in classy_vision.optim.OPTIMIZER_REGISTRY
assert "paramwise_classification_task" in classy_vision.tasks.TASK_REGISTRY
assert "classy_gc.param_groups" in sys.modules
"""
BROKEN = """
import warnings
from classy_gc.core import SGD
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import classy_vision
print(caught[0].message)
import classy_gc
try:
    classy_gc.optim
except ImportError:
    print("needs Classy Vision")
"""


@pytest.mark.parametrize(
    "code",
    [CORE, "import classy_gc.param_groups", SEEN],
    ids=["the core first, without the extras", "a folder first", "Classy Vision first"],
)
def test_names_are_registered_once_classy_vision_is_imported(code):
    done = subprocess.run([sys.executable, "-c", code + REGISTERED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_core_works_where_classy_vision_is_broken(tmp_path):
    for module, code in (("__init__", ""), ("dataset", "raise ImportError('no torchvision')")):
        path = tmp_path / "classy_vision" / f"{module}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN], env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "classy_gc registers nothing with Classy Vision, which cannot be imported: "
        "ImportError: no torchvision",
        "needs Classy Vision",
    ]
