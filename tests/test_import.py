"""What ``import classy_gc`` does to the process that it is imported into."""

import subprocess
import sys

import pytest

# Every attribute of every class and module of Classy Vision, by where it is; registries grow.
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
changed = [key for key in before if after.get(key) != before[key]]
assert not changed, changed
"""


def test_it_changes_nothing_of_classy_visions():
    subprocess.run([sys.executable, "-c", SEEN], check=True)


@pytest.mark.parametrize("flags", [["--help"], ["compare", "--help"], ["bench", "--stepz", "1"]])
def test_help_and_errors_do_not_wait_for_torch(flags):
    code = f"""
import sys

import pytest
sys.argv = ["/bin/classy-gc", *{flags!r}]
from classy_gc.commands import main
try:
    main()
except SystemExit as end:
    print(end.code)
assert not {{"torch", "classy_vision", "numpy"}} & {{*sys.modules}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ("0" if "--help" in flags else "2")
