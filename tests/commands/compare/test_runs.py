"""The runs of a comparison: what they leave behind, and how they end."""

import json
import math
import signal
import sys
from pathlib import Path

import pytest

from classy_gc.commands.compare.runs import Progress, Run, train_runs

CONFIG = json.loads((Path(__file__).parents[3] / "configs" / "digits_sgd_gc.json").read_text())


def run_of(folder, *lines, arm="a", seed=0):
    run = Run(arm, seed, folder / f"{arm}_{seed}", {"num_epochs": 1})
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.written_config))
    (run.folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return run


def test_a_log_is_read_while_it_is_written(tmp_path):
    phase = {"kind": "phase", "phase": "train", "loss": None, "epoch": 1.0, "seconds": 2.0}
    run = run_of(
        tmp_path,
        json.dumps(phase),
        json.dumps({"kind": "predictions", "correct": "01"}),
        json.dumps({"kind": "predictions", "correct": "11"}),
        '{"kind": "pha',
    )
    (found,) = run.phases()
    assert math.isnan(found["loss"])  # JSON has no NaN
    assert found["epoch"] == 1
    assert run.correct() == "11"
    assert Run("b", 0, tmp_path / "none").phases() == []
    assert Run("b", 0, tmp_path / "none").correct() is None


def test_a_run_is_finished_where_mark_config_and_log_are_whole(tmp_path):
    run = run_of(tmp_path, '{"kind": "phase"}')
    assert not run.finished
    run.mark_finished()
    assert run.finished
    assert run.diverged is None
    assert not Run("a", 0, run.folder, {"num_epochs": 2}).finished  # another config
    log = run.folder / "log.jsonl"
    text = log.read_text()
    for broken in (text[:-1], text[:-5], ""):
        log.write_text(broken)
        assert not run.finished
    log.unlink()
    assert not run.finished
    log.write_text(text)
    assert run.finished
    for mark in ("", "null", "[]", "{}", '{"log_bytes"'):
        (run.folder / "finished").write_text(mark)
        assert not run.finished


def test_progress_is_a_line_a_run_where_there_is_no_terminal(tmp_path, capsys):
    phase = json.dumps(
        {"kind": "phase", "phase": "test", "epoch": 1.0, "loss": 1.0, "seconds": 2.0}
        | {"meters": {"accuracy": {"top_1": 0.91234}}}
    )
    runs = [run_of(tmp_path, phase, seed=seed) for seed in (1, 2)]
    progress = Progress(runs, 3)  # one of the three was finished before
    progress.on_poll(runs)
    progress.on_end(runs[0], None)
    progress.on_end(runs[1], "exit code 1: no memory")
    progress.finish()
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("run 2/3  a  seed 1: accuracy/top_1 0.9123, 2.0 s")
    assert second.endswith("run 3/3  a  seed 2: exit code 1: no memory")
    assert progress.failed == {runs[1]: "exit code 1: no memory"}


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_runs_end_well_or_say_why_not(tmp_path):
    good = CONFIG | {"num_epochs": 1, "use_gpu": False}
    good["dataset"] = {
        phase: {**CONFIG["dataset"][phase], "num_samples": 64} for phase in ("train", "test")
    }
    bad = good | {"optimizer": {**good["optimizer"], "lr": 1e30}, "num_epochs": 3}
    bad["optimizer"].pop("param_schedulers", None)
    runs = [Run(n, 3, tmp_path / n, config) for n, config in (("good", good), ("bad", bad))]
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "left.over").touch()  # by a run that was killed
    ended, polled = {}, []
    train_runs(runs, 1, lambda r, why: ended.update({r.arm: why}), polled.append)
    assert ended["good"] is None
    assert "exit code 1" in ended["bad"]
    assert [run.finished for run in runs] == [True, True]
    assert [run.diverged for run in runs] == [None, ended["bad"]]
    assert "infinity or NaN" in ended["bad"]
    assert runs[0].provenance()[0]["classy_gc"]
    assert [p["phase"] for p in runs[0].phases()] == ["train", "test"]
    assert set(runs[0].correct()) <= {"0", "1"}
    assert not (tmp_path / "good" / "left.over").exists()
    assert not (tmp_path / "good" / "checkpoints").exists()
    assert polled
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
