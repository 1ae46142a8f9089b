"""``wandb_log`` and ``mlflow_log``, with the offline mode and the file store of the libraries."""

import inspect
import json
import sys
from pathlib import Path

import pytest
from classy_vision.hooks import build_hook

from tests.commands.training import short, train

METRICS = {"train/loss", "train/lr", "test/loss", "test/accuracy/top_1", "GC Removed/total"}


def config(hook, epochs):
    return short(epochs) | {"hooks": [hook, {"name": "gc_monitor", "interval": 2}]}


def twice(hook):
    """A run of an epoch, resumed for another."""
    for epochs, flags in ((1, []), (2, ["--checkpoint_load_path", "run/checkpoints"])):
        assert (
            train(config(hook, epochs), "--output_folder", "run", "--skip_tensorboard", *flags) == 0
        )


def losses():
    records = list(map(json.loads, Path("run/log.jsonl").read_text().splitlines()))
    return [r["loss"] for r in records if r["kind"] == "phase" and r["phase"] == "train"]


def test_mlflow(here, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file:{here}/runs"
    twice({"name": "mlflow_log", "tracking_uri": uri, "experiment": "digits", "run_name": "a"})
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "a")
    assert set(run.data.metrics) >= METRICS
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [m.value for m in history] == pytest.approx(losses())
    assert history[0].step < history[1].step
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts >= {"config.json", "curves.png"}


def test_wandb(here, monkeypatch):
    wandb = pytest.importorskip("wandb")
    runs = []
    start = wandb.init

    def init(**options):
        runs.append(start(**options))
        logged.append([])
        log = runs[-1].log
        monkeypatch.setattr(runs[-1], "log", lambda x: (logged[-1].append(x), log(x)))
        return runs[-1]

    logged = []
    init.__signature__ = inspect.signature(start)
    monkeypatch.setattr(wandb, "init", init)
    twice({"name": "wandb_log", "init": {"mode": "offline", "project": "digits", "dir": str(here)}})
    first, second = runs
    assert first.id == second.id
    assert first.config["optimizer"]["name"] == "sgd_gc"
    assert set().union(*logged[0]) >= {*METRICS, "epoch", "curves"}
    values = [x["train/loss"] for part in logged for x in part if "train/loss" in x]
    assert values == pytest.approx(losses())
    assert len(list(here.glob("wandb/offline-run-*/run-*.wandb"))) == 2


@pytest.mark.parametrize("library", ["wandb", "mlflow"])
def test_without_the_library(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"needs {library}: pip install 'classy-gc\[{library}\]'"):
        build_hook({"name": f"{library}_log"})


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ({"name": "wandb_log", "init": 1}, "init must be an object, not 1"),
        ({"name": "mlflow_log", "experiment": 1}, "experiment must be a string or null, not 1"),
    ],
)
def test_refused(hook, message):
    pytest.importorskip(hook["name"].removesuffix("_log"))
    with pytest.raises(ValueError, match=message):
        build_hook(hook)
