"""``--sweep`` and ``--confirm``: on small trainings, and on curves written by hand."""

import json
import os
import re
import signal
import statistics
import time
from pathlib import Path

import pytest
from matplotlib.image import imread

from classy_gc.commands import main
from classy_gc.commands.compare.arms import Arm
from classy_gc.commands.compare.statistics import spread
from classy_gc.commands.compare.sweep import (
    advice,
    at,
    best_value,
    beyond_edge,
    checked_sweep,
    response_picture,
)
from classy_gc.configuration.load import Config
from tests import forked
from tests.commands.compare.test_compare import arguments, tiny
from tests.commands.compare.test_results import by_seed, evaluated_logs, log

GC = ["--vary", "optimizer.use_gc=false,true"]
ACCURACY = "final test accuracy/top_1"


def swept(**options):
    config = tiny(**options)
    config["dataset"]["train"] |= {"num_validation": 200, "random_subset": True}
    return config


def final(pattern):
    """``{(arm, value): {seed: the run's last test accuracy}}``."""
    found = {}
    for file in Path().glob(pattern):
        arm, value, seed = file.parts[-4:-1]
        *_, last = [x for x in map(json.loads, file.open()) if x.get("phase") == "test"] or [None]
        if last:
            runs = found.setdefault((arm, float(value.removeprefix("lr="))), {})
            runs[int(seed.removeprefix("seed_"))] = last["meters"]["accuracy"]["top_1"]
    return found


def best_of_the_sweep(arms):
    """The best value of each arm by its logs, which the results agree with."""
    best, validation = {}, final("out/sweep/*/*/*/log.jsonl")
    for arm in arms:
        means = {
            value: statistics.mean(runs.values())
            for (name, value), runs in validation.items()
            if name == arm["name"] and len(runs) == 2
        }
        best[arm["name"]] = max(sorted(means), key=means.get)
        assert arm["best"] == best[arm["name"]]
        *_, largest = points = arm["points"]
        assert largest["value"] == 4e29
        assert largest["runs"] == [{"seed": seed, "result": None} for seed in (100, 101)]
        assert points[0]["value"] < arm["best"] or len(points) == 8  # of the last extension
    return best


def test_killed_and_resumed_to_its_end(here, capsys):
    """Every run above 1e20 diverges, and the search goes below the smallest value too."""
    command = arguments(swept(), *GC, "--sweep", "optimizer.lr=0.4:4e29:2", "--jobs", 2)
    command += ["--seeds", "100-101", "--confirm", "200-202"]
    process = forked.start(forked.command, *command, cwd=here, output=(os.devnull, os.devnull))
    deadline = time.monotonic() + 120
    while len(list(Path().rglob("finished"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    time.sleep(0.5)
    before = {mark: mark.stat().st_mtime_ns for mark in Path().rglob("finished")}
    assert len(before) >= 3
    assert main(command) == 0
    assert before.items() <= {m: m.stat().st_mtime_ns for m in before}.items()

    results = json.loads(Path("out/results.json").read_text())
    test = final("out/runs/*/*/*/log.jsonl")
    best = best_of_the_sweep(results["sweep"]["arms"])
    off, on = best["use_gc=false"], best["use_gc=true"]
    assert set(test) == {("use_gc=false", off), ("use_gc=true", on), ("use_gc=true", off)}
    assert all(set(runs) == {200, 201, 202} for runs in test.values())
    first, *others = results["arms"]
    assert (first["name"], first["baseline"]) == (f"use_gc=false, lr={off:g}", None)
    assert {arm["baseline"] for arm in others} == {first["name"]}
    printed = capsys.readouterr().out
    assert re.search(r"\nuse_gc=true +4e\+29 +– \(0 of 2\)\n", printed)
    assert re.search(rf"\nuse_gc=true +{on:g} +.* % +best\n", printed)
    failed = results["sweep"]["failed"]
    assert {x["seed"] for x in failed if x["arm"] == "use_gc=true, lr=4e+29"} == {100, 101}
    assert all("infinity or NaN" in x["reason"] for x in failed)
    assert re.search(r"\n(Take|Stay with) use_gc=.*\nwritten to out: .*, sweep.png\n$", printed)
    assert imread("out/sweep.png").shape[0] > 400

    # Trained without the validation images, tested on those or on the test images.
    (tuning,) = Path("out/sweep/use_gc=true/lr=0.4/seed_100").glob("config.json")
    (confirming,) = Path(f"out/runs/use_gc=false/lr={off:g}/seed_200").glob("config.json")
    tuning, confirming = (json.loads(x.read_text())["dataset"] for x in (tuning, confirming))
    assert tuning["train"] == confirming["train"]
    assert tuning["test"] == {**confirming["test"], "split": "validation", "num_validation": 200}
    assert confirming["test"]["split"] == "test"


def arm(**optimizer):
    config = Config("c.json")
    config["optimizer"] = {"name": "sgd_gc", **optimizer}
    return Arm("a", "", "c", {}, config, "a")


def schedule(lr, **options):
    return {"param_schedulers": {"lr": {"name": lr, **options}}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"lr": 0.1}, {"lr": 0.4}),
        ({}, {"lr": 0.4}),
        (
            schedule("cosine", start_value=0.1, end_value=0.01),
            schedule("cosine", start_value=0.4, end_value=0.04),
        ),
        (
            schedule("multistep", values=[0.05, 0.1, 0.02], milestones=[3, 5]),
            schedule("multistep", values=[0.2, 0.4, 0.08], milestones=[3, 5]),
        ),
        (
            schedule("one_cycle", start_value=0.01, peak_value=0.1, end_value=0, pct_start=0.2),
            schedule("one_cycle", start_value=0.04, peak_value=0.4, end_value=0, pct_start=0.2),
        ),
        (
            schedule(
                "composite",
                schedulers=[
                    {"name": "linear", "start_value": 0.05, "end_value": 0.1},
                    {"name": "polynomial", "base_value": 0.1, "power": 2},
                ],
                lengths=[0.1, 0.9],
            ),
            schedule(
                "composite",
                schedulers=[
                    {"name": "linear", "start_value": 0.2, "end_value": 0.4},
                    {"name": "polynomial", "base_value": 0.4, "power": 2},
                ],
                lengths=[0.1, 0.9],
            ),
        ),
    ],
)
def test_of_a_schedule_the_whole_curve_is_scaled(before, after):
    swept = at(arm(**before), "optimizer.lr", 0.4)
    assert swept.name == "a, lr=0.4"
    assert swept.settings == {"optimizer.lr": 0.4}

    def rounded(value):
        if isinstance(value, dict):
            return {k: rounded(x) for k, x in value.items()}
        if isinstance(value, list):
            return list(map(rounded, value))
        return pytest.approx(value) if isinstance(value, float) else value

    assert swept.config["optimizer"] == rounded({"name": "sgd_gc", **after})


def test_values_are_a_factor_apart():
    sweep = checked_sweep("optimizer.lr=0.0125:0.8:7", [])
    assert sweep == ("optimizer.lr", [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8])


def points_of(curve):
    """The points of an arm in ``results.json``."""
    return [
        {
            "value": value,
            "spread": spread(results),
            "runs": [{"seed": seed, "result": x} for seed, x in enumerate(results)],
        }
        for value, results in sorted(curve.items())
    ]


@pytest.mark.parametrize(
    ("curve", "lower", "best", "beyond"),
    [
        ({1: [0.5, 0.7], 2: [0.6, 0.7]}, False, 2, 4),
        ({1: [0.5, 0.7], 2: [0.6, 0.7]}, True, 1, 0.5),
        ({1: [0.5, 0.5], 2: [0.6, 0.7], 4: [0.5, 0.5]}, False, 2, None),
        ({1: [0.5, 0.7], 2: [0.99, None]}, False, 1, 0.5),  # not the mean of survivors
        ({2: [0.5, 0.5], 1: [0.5, 0.5]}, False, 1, 0.5),
        ({1: [None], 2: [None]}, False, None, 0.5),
    ],
)
def test_the_best_has_the_best_mean_of_all_its_seeds(curve, lower, best, beyond):
    points = points_of(curve)
    assert best_value(points, lower) == best
    assert beyond_edge(points, best) == beyond


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (tiny(), ["--sweep", "optimizer.lr=0.1:0.2:2"], "dataset.train must say how many"),
        (swept(), ["--sweep", "optimizer.lr=0.2:0.1:2"], "must be KEY=LOW:HIGH:COUNT"),
        (swept(), ["--sweep", "optimizer.lr=0.1,0.2"], "must be KEY=LOW:HIGH:COUNT"),
        (swept(), ["--sweep", "optimizer.lr=0.1:0.2:1"], "COUNT >= 2"),
        (swept(), ["--sweep", "optimizer.use_gc=0.1:1:3"], "optimizer.use_gc is varied too"),
        (swept(), ["--sweep", "optimizer.lrr=0.1:1:3"], "arm 'use_gc=false, lrr=0.1'.* mean 'lr'"),
        (swept(), ["--sweep", ""], "must be KEY=LOW:HIGH:COUNT"),
        (swept(), ["--confirm", "5"], "--confirm needs --sweep"),
        (
            swept(),
            ["--sweep", "optimizer.lr=0.1:1:3", "--seeds", "3", "--confirm", "2-4"],
            "--confirm must be fresh seeds",
        ),
        (swept(), ["--seeds", "0"], "'0' must be a number of seeds"),
        (swept(), ["--seeds", "5-4"], "'5-4' must be a number of seeds"),
        (swept(), ["--seeds", "1-2-3"], "'1-2-3' must be a number of seeds"),
        (
            swept(param_schedulers={"lr": {"name": "constant", "value": 0}}),
            ["--sweep", "optimizer.lr=0.1:1:3"],
            "optimizer.param_schedulers.lr has no value > 0 to scale",
        ),
    ],
)
def test_bad_flags_are_one_line_before_anything_is_written(config, flags, message, here, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments(config, *GC, *flags))
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.splitlines()) == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("on", "words"),
    [
        ([0.60, 0.71, 0.80], "Take on: it is better than off"),
        ([0.40, 0.51, 0.60], "Stay with off: no other arm can be told"),
        ([0.40, 0.71, 0.71], "Stay with off: no other arm can be told"),
    ],
)
def test_the_last_sentence_is_what_to_do(on, words):
    arms = {"off": [0.50, 0.60, 0.70], "on": on}
    phases = {name: by_seed([log(x) for x in values]) for name, values in arms.items()}
    results = evaluated_logs(phases, 3) | {"lower_is_better": False}
    assert advice(results).startswith(words)


def test_the_picture_shows_failures_and_the_best():
    curves = {"off": {0.1: [0.5, 0.6], 0.2: [0.9, None]}, "on$": {0.1: [0.5, 0.7], 0.2: [0.8, 0.9]}}
    best = {"off": 0.1, "on$": 0.2}
    arms = [{"name": x, "best": best[x], "points": points_of(curves[x])} for x in curves]
    figure = response_picture({"key": "optimizer.lr", "metric": ACCURACY, "arms": arms})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [" 1 failed"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["off: best at 0.1", r"on\$: best at 0.2"]
