import json
import subprocess
from pathlib import Path

import pytest
import torch
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

import classy_gc
from classy_gc.hooks import provenance as module

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("order", [1, -1])
def test_the_line_says_what_the_run_is_computed_with(order, tmp_path):
    config = json.loads((ROOT / "configs/digits_sgd_gc.json").read_text())
    config |= {"num_epochs": 1, "use_gpu": False}
    for dataset in config["dataset"].values():
        dataset["num_samples"] = 64
    hooks = [{"name": "json_log", "folder": str(tmp_path)}, {"name": "provenance"}]
    LocalTrainer().train(build_task(config | {"hooks": hooks[::order]}))
    records = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    line, *phases = records
    assert [phase["kind"] for phase in phases] == ["phase", "phase"]
    assert (line["kind"], line["torch"]) == ("provenance", torch.__version__)
    assert line["classy_gc"] == classy_gc.__version__
    assert line["threads"] == torch.get_num_threads()
    assert line["vector_units"] == torch.backends.cpu.get_cpu_capability()


def test_the_commit_is_that_of_the_package_and_of_no_other_checkout(tmp_path, monkeypatch):
    def git(*words):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", *names, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    git("tag", "v1")
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path)
    assert module.provenance()["commit"] == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert module.provenance()["commit"] == git("rev-parse", "HEAD") + "-dirty"
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(module, "_CHECKOUT", tmp_path / "lib")
    assert module.provenance()["commit"] is None
