"""CONTRIBUTING, word by word: an optimizer takes four files, and the generic tests run for it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, re.S)
OPTIMIZERS = {"NAdam": BLOCKS[:4], "Lion": BLOCKS[4:]}
TESTS = [
    "tests/core/test_optimizers.py",
    "tests/optim/test_classy_gc_optimizer.py",
    "tests/optim/test_validation.py",
]


def follow(folder, path, code):
    """Does what a block of the text says, in a copy of the repository."""
    file = folder / path
    if path == "tests/core/cases.py":  # a row for the table
        table = file.read_text().replace("ROWS = [\n", f"ROWS = [\n{code}", 1)
        file.write_text(table)
    elif file.exists():
        file.write_text(file.read_text() + code)
    else:
        file.write_text(code)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository after following the whole text."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("classy_gc", "tests", "configs"):
        ignore = shutil.ignore_patterns("__pycache__", "evidence")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / ".pytest.ini", folder)
    for blocks in OPTIMIZERS.values():
        for path, code in blocks:
            follow(folder, path, code)
    return folder


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_four_files_at_most(name):
    assert 0 < len({path for path, _ in OPTIMIZERS[name]}) <= 4


def test_the_generic_tests_run_for_both(copy):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"),
            *("--maxfail=5", "-k", "NAdam or Lion or nadam_gc or lion_gc", *TESTS),
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > 100
