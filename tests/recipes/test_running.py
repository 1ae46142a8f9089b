"""Each recipe, run as it is, does what the guide says it does."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from classy_gc.commands import main

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; what the command sets for its process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS", ""))
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield tmp_path
    root.setLevel(level)
    root.handlers[:] = handlers


def train(recipe, *flags):
    """Trains a recipe into ``run`` and returns the lines of its log."""
    path = RECIPES / f"{recipe}.json"
    flags = ("--output_folder", "run", "--skip_tensorboard", *map(str, flags))
    assert main(["train", "--config_file", str(path), *flags]) == 0
    return log("run")


def log(folder):
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def phases(lines):
    return [(line["phase"], line["epoch"]) for line in lines]


def test_custom_imports(tmp_path):
    command = [Path(sys.executable).parent / "classy-gc", "train"]
    command += ["--config_file", "custom_imports.json", "--output_folder", tmp_path / "run"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        list(map(str, command)), cwd=RECIPES, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    lines = log(tmp_path / "run")
    assert phases(lines) == [("train", 1), ("test", 1), ("train", 2), ("test", 2)]
    assert lines[-1]["meters"]["accuracy"]["top_1"] > 0.5
