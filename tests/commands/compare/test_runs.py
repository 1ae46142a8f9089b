"""The runs of a comparison: what they leave behind, and how they end."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from classy_gc.commands.compare.arms import Arm
from classy_gc.commands.compare.runs import Local, Run, runs_in, train_runs
from tests.commands.training import digits


def run_of(folder, *lines, arm="a", seed=0):
    run = Run(arm, seed, folder / f"{arm}_{seed}", {"num_epochs": 1, "hooks": []})
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(json.dumps(run.config))
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
    (found,) = run.log("phase")
    assert found["loss"] is None  # JSON has no NaN
    assert found["epoch"] == 1
    assert [x["correct"] for x in run.log("predictions")] == ["01", "11"]
    assert Run("b", 0, tmp_path / "none", {}).log("phase") == []


def test_a_run_is_finished_where_mark_config_and_log_are_whole(tmp_path):
    run = run_of(tmp_path, '{"kind": "phase"}')
    assert run.ending() is None
    run.mark_finished()
    assert run.ending() == ""
    assert Run("a", 0, run.folder, {"num_epochs": 2}).ending() is None  # another config
    log = run.folder / "log.jsonl"
    text = log.read_text()
    for broken in (text[:-1], text[:-5], ""):
        log.write_text(broken)
        assert run.ending() is None
    log.unlink()
    assert run.ending() is None
    log.write_text(text)
    assert run.ending() == ""
    for mark in ("", "null", "[]", "[1]", "5", '"a"', "true", "{}", '{"log_bytes"'):
        (run.folder / "finished").write_text(mark)
        assert run.ending() is None


class Ended:
    """An engine on which each run has already ended as the test says."""

    limit = 1

    def __init__(self, *hows):
        self.hows, self.started, self.stopped = list(hows), [], False

    def start(self, runs):
        self.started += runs

    def ended(self):
        phase = {"kind": "phase", "phase": "test", "epoch": 1.0, "loss": 1.0, "seconds": 2.0}
        phase |= {"meters": {"accuracy": {"top_1": 0.91234}}}
        run, how = self.started[-1], self.hows.pop(0)
        (run.folder / "log.jsonl").write_text(json.dumps(phase) + "\n")
        if how == "exit code 0":
            run.mark_finished()
        (run.folder / "output.log").write_text("what it did\nno memory\n")
        return {run: how}

    def stop(self):
        self.stopped = True


def test_progress_is_a_line_a_run_where_there_is_no_terminal(tmp_path, capsys):
    runs = [run_of(tmp_path, seed=seed) for seed in range(4)]
    runs[0].mark_finished()
    engine = Ended("exit code 0", "exit code 1", "killed by SIGKILL")
    failed = train_runs(runs, engine)
    assert engine.started == runs[1:]
    assert engine.stopped
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith("run 2/4  a  seed 1: loss 1, accuracy/top_1 0.9123")
    assert second.endswith("run 3/4  a  seed 2: exit code 1: no memory")
    assert third.endswith("run 4/4  a  seed 3: killed by SIGKILL: no memory")
    assert failed == {runs[2]: "exit code 1: no memory", runs[3]: "killed by SIGKILL: no memory"}


def test_what_nfs_keeps_in_a_folder_stops_nobody(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    (run.folder / "config.json").write_text("{}")  # of another run
    kept = run.folder / ".nfs000001"
    kept.touch()
    remove = shutil.rmtree

    def keep(folder, ignore_errors=False):
        remove(folder)
        Path(folder).mkdir()
        kept.touch()

    monkeypatch.setattr(shutil, "rmtree", keep)
    assert train_runs([run], Ended("exit code 0")) == {}


@pytest.mark.parametrize("log", [None, "", '{"kind": "phase"'])
def test_a_finished_run_whose_log_is_damaged_starts_again(log, tmp_path):
    run = run_of(tmp_path, '{"kind": "phase"}')
    run.mark_finished()
    checkpoints = run.folder / "checkpoints"  # from which it would only go on
    checkpoints.mkdir()
    (run.folder / "log.jsonl").unlink()
    if log is not None:
        (run.folder / "log.jsonl").write_text(log)
    assert train_runs([run], Ended("exit code 0")) == {}
    assert not checkpoints.exists()


@pytest.mark.parametrize("line", ["null", "123", "[]", '"x"', '{"phase": "test"}', "[" * 3000])
def test_a_line_of_the_log_that_is_no_record_is_passed_over(line, tmp_path):
    phase = {"kind": "phase", "phase": "train", "loss": 1.0, "epoch": 1.0, "seconds": 2.0}
    assert run_of(tmp_path, line, json.dumps(phase)).log("phase") == [phase]


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_runs_end_well_or_say_why_not(tmp_path):
    good = digits(1, 64)
    bad = good | {"optimizer": {**good["optimizer"], "lr": 1e30}, "num_epochs": 3}
    bad["optimizer"].pop("param_schedulers", None)
    arms = [Arm(n, "", "c", {}, config, n) for n, config in (("good", good), ("bad", bad))]
    runs = runs_in(tmp_path, arms, [3])
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "left.over").touch()  # by a run of another config
    ended = train_runs(runs, Local(1))
    assert [run.arm for run in ended] == ["bad"]
    assert [run.ending() for run in runs] == ["", ended[runs[1]]]
    assert "infinity or NaN" in ended[runs[1]]
    assert runs[0].log("provenance")[0]["classy_gc"]
    assert [p["phase"] for p in runs[0].log("phase")] == ["train", "test"]
    (line,) = runs[0].log("predictions")
    assert set(line["correct"]) <= {"0", "1"}
    assert not (runs[0].folder / "left.over").exists()
    assert not (runs[0].folder / "checkpoints").exists()
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
