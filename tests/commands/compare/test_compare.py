import contextlib
import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from classy_gc.commands import main
from classy_gc.commands.compare.arms import Choice, build_arms, families, folder_names, parse_axes
from classy_gc.commands.compare.plot import picture
from classy_gc.commands.compare.results import phase_table
from classy_gc.commands.flags import parse_settings, parse_values
from tests import forked
from tests.commands.compare.test_results import by_run
from tests.commands.training import short

# What a run does besides training (nothing, raise, crash, wait or hold), and how long a step takes.
HOOKS = """
import os
import time
from pathlib import Path
from classy_vision.hooks import ClassyHook, register_hook

@register_hook("test_compare")
class TestCompare(ClassyHook):
    on_start = on_phase_start = on_phase_end = on_end = ClassyHook._noop

    def __init__(self, do, seconds):
        super().__init__()
        self.do, self.seconds = do, seconds

    @classmethod
    def from_config(cls, config):
        return cls(config["do"], config["seconds"])

    def on_step(self, task):
        time.sleep(self.seconds)
        while self.do == "wait" and len(list(Path("out").glob("runs/*/*/finished"))) >= int(
            Path("limit").read_text()
        ):
            time.sleep(0.05)  # so that nothing ends before the test has seen that another one did
        while self.do == "hold" and task.train_phase_idx > 2 and not Path("go").exists():
            time.sleep(0.05)
        if self.do == "raise":
            raise RuntimeError("what a run\\nsays at its end")
        if self.do == "crash":
            os.kill(os.getpid(), 9)
"""


def tiny(epochs=1, samples=64, **optimizer):
    """A small network on digits, with augmentation, which draws random numbers."""
    config = short(epochs, samples)
    config["model"] = {"name": "mlp", "input_dim": 192, "output_dim": 10, "hidden_dims": [32]}
    config["optimizer"] = {"name": "sgd_gc", "lr": 0.1} | optimizer
    return config


def hooked(seconds=0.0, do="", **kwargs):
    Path("test_compare_hooks.py").write_text(HOOKS)
    hook = {"name": "test_compare", "do": do, "seconds": seconds}
    return tiny(**kwargs) | {"custom_imports": ["test_compare_hooks"], "hooks": [hook]}


def arguments(config, *flags):
    Path("tiny.json").write_text(json.dumps(config))
    return ["compare", "--config_file", "tiny.json", "--output_folder", "out", *map(str, flags)]


def logs(folder="out"):
    """(arm's folder, seed): what the run has logged."""
    return {
        (path.parts[-3], int(path.parts[-2].removeprefix("seed_"))): [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        for path in Path(folder).glob("runs/*/*/log.jsonl")
    }


def finished():
    """Each file of a finished run, and when it was written."""
    folders = [mark.parent for mark in Path("out").glob("runs/*/*/finished")]
    return {file: file.stat().st_mtime_ns for folder in folders for file in folder.iterdir()}


def marks():
    return len(list(Path("out").glob("runs/*/*/finished")))


def read(terminal):
    """What the terminal shows so far."""
    shown = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            shown += chunk
    return shown


def stopped(command, by, here):
    """Starts a command in a terminal, stops it once one more run has ended; what it has shown."""
    before = marks()
    Path("limit").write_text(str(before + 1))
    ours, its = pty.openpty()
    os.set_blocking(ours, False)
    shown = b""
    output = (os.devnull, os.ttyname(its))
    process = forked.start(forked.command, *command, cwd=here, output=output)
    deadline = time.monotonic() + 120
    while marks() == before or b"/6" not in shown:
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
        shown += read(ours)
    os.kill(process.pid, by)
    process.join(60)
    os.close(its)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", (shown + read(ours)).decode())  # without colours
    os.close(ours)
    return process.exitcode, shown


def check_files_of_the_interrupted(printed):
    """The tables, the logs and the picture agree with what was printed."""
    results = json.loads(Path("out/results.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == ["use_gc=false", "use_gc=true"]
    assert results["failed"] == []
    table = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert len(table) == 8 * 2 * 2
    assert {row["config.optimizer.use_gc"] for row in table} == {"false", "true"}
    correct = {run: [x["correct"] for x in log if "correct" in x] for run, log in logs().items()}
    shares = {run: digits[-1].count("1") / 64 for run, digits in correct.items()}
    for arm in results["arms"]:
        for run in arm["runs"]:
            log = logs()[arm["name"], run["seed"]]
            # A run that was killed has a line on what it was resumed with.
            *_, train, test = [line for line in log if line["kind"] == "phase"]
            accuracy = test["meters"]["accuracy"]["top_1"]
            assert run["final test accuracy/top_1"] == accuracy
            assert shares.pop((arm["name"], run["seed"])) == accuracy
            assert run["final train loss"] == train["loss"]
    assert not shares
    assert not list(Path("out").rglob("*.torch"))
    assert re.search(
        r"right where the other is wrong: \d+ test samples, the baseline: \d+, of 4 seeds", printed
    )
    image = imread("out/comparison.png")
    assert image.shape[0] > 400
    assert image.shape[1] > 3 * 400
    for color in ("#0072B2", "#D55E00"):
        assert (np.abs(image[..., :3] - to_rgb(color)).max(axis=-1) < 0.02).sum() > 200


def test_interrupted_twice_and_resumed(here, capfd):
    """Killed, then stopped by Ctrl-C, then run to its end with one more seed."""
    command = arguments(hooked(0.02, "wait", epochs=2), "--vary", "optimizer.use_gc=false,true")
    command += ["--jobs", "2", "--target", "accuracy/top_1=0.99", "--seeds"]
    seen = {}
    for by, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        exitcode, shown = stopped([*command, "3"], by, here)
        assert exitcode == code, shown
        assert re.search(r"\d/6 runs", shown), shown
        assert ("the same command continues from here" in shown) == (by == signal.SIGINT)
        time.sleep(0.3)
        written = {path: path.stat().st_size for path in Path("out").rglob("*")}
        time.sleep(0.5)  # long enough for a run to train on
        assert written == {path: path.stat().st_size for path in Path("out").rglob("*")}
        assert seen.items() <= finished().items()
        seen = finished()
        assert 0 < marks() < 6
    Path("limit").write_text("99")
    assert main([*command, "4", "--power", "0.5"]) == 0
    assert seen.items() <= finished().items()
    assert marks() == 8
    printed = capfd.readouterr().out
    assert re.search(r"\n  use_gc=true: .* over 4 seeds", printed)
    assert re.search(r"\nuse_gc=false +\d+\.\d\d ± \d+\.\d\d % .* 4 of 4\n", printed)
    check_files_of_the_interrupted(printed)

    with pytest.raises(SystemExit):  # not the same command
        main([*arguments(tiny(), "--vary", "optimizer.use_gc=false,true")])
    assert "out holds another comparison: out/comparison.json has" in capfd.readouterr().err


def test_failing_runs_take_nobody_down(here, capfd):
    command = arguments(hooked(), "--vary", "hooks.0.do=nothing,raise,crash", "--seeds", 2)
    assert main(command) == 1
    printed = capfd.readouterr().out
    assert "failed: do=raise, seed 0: exit code 1: RuntimeError: what a run" in printed
    assert "failed: do=crash, seed 1: killed by SIGKILL" in printed
    assert ", see out/runs/do=crash/seed_1/output.log\n" in printed
    assert "do=raise: no seed has a value in both arms" in printed
    assert marks() == 2
    assert "RuntimeError" in Path("out/runs/do=raise/seed_1/output.log").read_text()
    failed = json.loads(Path("out/results.json").read_text())["failed"]
    assert len(failed) == 4
    assert Path("out/comparison.png").is_file()


def test_arms_start_with_the_same_weights_and_data(here, capfd):
    """The loss of the first epoch is that of its only batch, before any step."""
    config = tiny(epochs=2, samples=32)
    Path("out").mkdir()
    Path("out", ".comparison.json.tmp").touch()  # half a plan, of a comparison killed at once
    flags = ["--arm", "off", "optimizer.use_gc=false", "--seeds", "2"]
    flags += ["--arm", "on", "optimizer.use_gc=true", "optimizer.momentum=0.5"]
    assert main(arguments(config, *flags)) == 0
    first, second = (
        {
            key: [r["loss"] for r in records if r.get("phase") == "train"][epoch]
            for key, records in logs().items()
        }
        for epoch in (0, 1)
    )
    assert first["off", 0] == first["on", 0] != first["off", 1] == first["on", 1]
    assert second["off", 0] != second["on", 0]
    assert json.loads(Path("out/runs/on/seed_1/config.json").read_text())["optimizer"] == {
        "name": "sgd_gc",
        "lr": 0.1,
        "use_gc": True,
        "momentum": 0.5,
    }


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("false,0.1,null", [False, 0.1, None]),
        ("cosine,step", ["cosine", "step"]),
        ("[0.9,0.99],[0.8,0.9]", [[0.9, 0.99], [0.8, 0.9]]),
        ('{"name": "step", "values": [1, 0]},"a,b"', [{"name": "step", "values": [1, 0]}, "a,b"]),
        ("1e-3,1x", [1e-3, "1x"]),
    ],
)
def test_values(flag, values):
    assert parse_values(flag) == values


def test_names_of_values():
    def labels(*varied):
        return [choice.label for choice in parse_axes([], [*map(parse_settings, varied)])[0]]

    assert labels('loss={"name":"a"},null') == ['loss={"name":"a"}', "loss=null"]
    assert labels("optimizer.lr=1,2") == ["lr=1", "lr=2"]
    assert labels("optimizer.lr=1", "model.lr=1") == ["optimizer.lr=1"]
    assert labels("model.hidden_dims.0=8") == ["model.hidden_dims.0=8"]


def test_arms_of_several_configs(here):
    for name in ("sgd", "adam"):
        Path(f"{name}.json").write_text(json.dumps(tiny(name=f"{name}_gc")))
    files = ["sgd.json", "adam.json"]
    gc = [Choice(f"use_gc={x}", {"optimizer.use_gc": x}) for x in (False, True)]
    lr = [Choice(f"lr={x}", {"optimizer.lr": x}) for x in (1, 2)]

    arms = build_arms(files, [gc, lr])
    assert arms[1].name == "sgd, use_gc=False, lr=2"
    assert arms[1].config["optimizer"] == {"name": "sgd_gc", "lr": 2, "use_gc": False}
    assert {f: [a.name for a in group] for f, group in families(arms).items()} == {
        file: [f"{file}, use_gc={x}, lr={y}" for x in (False, True) for y in (1, 2)]
        for file in ("sgd", "adam")
    }
    arms = build_arms(files, [gc, lr], effect_of="optimizer.use_gc")
    assert {f: [a.name for a in group] for f, group in families(arms).items()} == {
        f"{file}, lr={y}": [f"{file}, use_gc={x}, lr={y}" for x in (False, True)]
        for file in ("sgd", "adam")
        for y in (1, 2)
    }
    (group,) = families(build_arms(files, [])).values()
    assert [arm.name for arm in group] == ["sgd", "adam"]


def phase(kind, epoch, loss, **options):
    record = {"phase": kind, "epoch": epoch, "loss": loss, "options": options}
    return record | {"meters": {}, "seconds": 1.0}


def drawn(families, headline, seeds):
    """The picture of families of arms."""
    logs = {arm: runs for family in families.values() for arm, runs in family.items()}
    return picture(phase_table({arm: {} for arm in logs}, by_run(logs)), families, headline, seeds)


def test_picture_has_a_row_for_each_family_and_only_options_that_change():
    run = [
        phase("train", 1.0, 2.0, lr=1, use_gc=1, x=0),
        phase("test", 1.0, 2.0),
        phase("train", 2.0, 1.0, lr=1, use_gc=0, x=0),
    ]
    figure = drawn(
        {"a": {"on": {0: run}, "off": {0: run, 1: run}}, "b": {"c": {}}}, "final test loss", 2
    )
    rows = figure.subfigs
    assert [axes.get_title() for axes in rows[0].axes] == [
        "train loss",
        "test loss",
        "difference to the first",
        "learning rate",
        "use_gc",
    ]
    assert [text.get_text() for text in rows[0].legends[0].get_texts()] == [
        "on (1 of 2 runs)",
        "off",
    ]
    assert [text.get_text() for text in rows[1].legends[0].get_texts()] == ["c (0 of 2 runs)"]
    assert rows[0].axes[4].lines[1].get_ydata().tolist() == [1, 0]
    assert rows[0].axes[4].lines[1].get_drawstyle() == "steps-mid"
    assert len(rows) == 2


def test_long_names_stay_in_the_picture():
    run = [phase("train", 1.0, 2.0, lr=1), phase("test", 1.0, 2.0)]
    arms = {f"{'a very long $name_ ' * 15}{i}": {0: run} for i in range(9)}
    short = {f"{i}$a$": {0: run} for i in range(9)}
    figure = drawn({"x" * 400: arms, "short$_$": short}, "final test loss", 1)
    figure.draw_without_rendering()
    for row in figure.subfigs:
        axes = row.axes[0]
        assert axes.get_window_extent().height > 0.3 * row.bbox.height
        for artist in (row._suptitle, row.legends[0], axes.title):
            box = artist.get_window_extent()
            assert row.bbox.x0 <= box.x0 < box.x1 <= row.bbox.x1
            assert row.bbox.y0 <= box.y0 < box.y1 <= row.bbox.y1


@pytest.mark.parametrize(
    "plan",
    [b"[]", b"{}", b"null", b"", b"\xff\xfe\x00", b'{"arms": [{"na', b'{"arms": [1]}', b"[" * 3000],
)
def test_a_folder_with_the_plan_of_something_else(plan, here, capsys):
    Path("out").mkdir()
    Path("out/comparison.json").write_bytes(plan)
    with pytest.raises(SystemExit, match="2"):
        main(arguments(tiny(), *GC))
    error = capsys.readouterr().err
    assert error.startswith("classy-gc compare: error: --output_folder out")
    assert "out/comparison.json has other arms, other configs of them, or is damaged" in error
    assert error.count("\n") == 1
    assert [path.name for path in Path("out").iterdir()] == ["comparison.json"]


def test_a_comparison_whose_runs_all_diverge(here, capsys):
    command = arguments(tiny(samples=96), "--arm", "diverges", "optimizer.lr=1e30", *GC)
    assert main([*command, "--seeds", "1"]) == 1
    assert re.search(r"\nfailed: .*, seed 0: .* infinity or NaN", capsys.readouterr().out)
    assert main(["compare-summary", "out"]) == 0
    assert "so there is nothing to compare" in capsys.readouterr().out


def test_runs_that_diverge_at_once_and_other_test_images(here, capsys):
    flags = ["--arm", "off", GC[1].replace("false,true", "false"), "--arm", "on", GC_ON]
    flags += ["--arm", "other images", "dataset.test.num_samples=32"]
    flags += ["--arm", "diverges", "optimizer.lr=1e30", "--jobs", "2"]
    command = arguments(tiny(samples=96), *flags, "--seeds", "2")
    assert main(command) == 1
    results = json.loads(Path("out/results.json").read_text())
    assert [(x["arm"], x["seed"]) for x in results["failed"]] == [("diverges", 0), ("diverges", 1)]
    assert all("infinity or NaN" in x["reason"] for x in results["failed"])
    _, on, other, diverges = results["arms"]
    assert on["mcnemar"]["seeds"] == 2
    assert other["mcnemar"] is None  # image by image these are not the same ones
    assert other["difference"]["pairs"] == 2
    assert diverges["runs"] == []
    assert "phase" not in {x["kind"] for x in logs().get(("diverges", 0), [])}

    before = finished()
    assert main(command) == 1  # which trains nothing
    assert finished() == before
    assert json.loads(Path("out/results.json").read_text()) == results
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(arguments(tiny(samples=96), *flags, "--seeds", "1"))
    assert "out has results of the seeds 1 too, which would be lost" in capsys.readouterr().err
    assert finished() == before


def test_a_locale_that_lacks_a_sign_costs_no_results(here):
    arms = [["--arm", f"{x} – ä", f"optimizer.use_gc={x}"] for x in ("false", "true")]
    command = arguments(tiny(), *arms[0], *arms[1], "--seeds", 2, "--jobs", 1)
    assert main(command) == 0
    for file in ("results.json", "results.csv", "comparison.png"):
        Path("out", file).unlink()
    # What has been trained is not trained again, but read, printed and written.
    env = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code = "import sys; from classy_gc.commands import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert b" ? " in done.stdout  # in place of ±
    assert done.stdout.isascii()
    results = json.loads(Path("out/results.json").read_text(encoding="utf-8"))
    assert len(results["arms"][1]["runs"]) == 2
    assert [arm["name"] for arm in results["arms"]] == ["false – ä", "true – ä"]
    assert "\nfalse – ä," in Path("out/results.csv").read_text(encoding="utf-8")
    assert Path("out/comparison.png").is_file()


GC = ["--vary", "optimizer.use_gc=false,true"]
GC_ON = "optimizer.use_gc=true"
COSINE = {"name": "cosine", "start_value": 0.1, "end_value": 0}
SCHEDULED = tiny(param_schedulers={"lr": COSINE})
SYNTHETIC = {
    "name": "synthetic_image",
    "crop_size": 8,
    "class_ratio": 0.5,
    "seed": 0,
    "num_samples": 64,
    "batchsize_per_replica": 32,
    "use_shuffle": True,
    "transforms": [
        {"name": "apply_transform_to_key", "key": "input", "transforms": [{"name": "ToTensor"}]}
    ],
}


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (tiny(), [], "there is only one arm; give --vary, --arm or another config"),
        (tiny(), ["--vary", "optimizer.use_gc"], "--vary: 'optimizer.use_gc' must be KEY=VALUE"),
        (tiny(), ["--vary", "optimizer.lr="], "optimizer.lr: '' is neither JSON nor a word"),
        (tiny(), ["--vary", "optimizer.betas=[0.9,0.99"], r"betas: '\[0.9,0.99' is neither"),
        (tiny(), [*GC, *GC], "--vary: a key occurs twice"),
        (tiny(), ["--arm", "a", *GC[1:]], "--arm a: optimizer.use_gc must have one value, not 2"),
        (tiny(), ["--vary", "optimizer.lr=0.1,0.1"], "arms 'lr=0.1' and 'lr=0.1' are the same"),
        (tiny(), ["--vary", "optimiser.lr=1,2"], "'optimiser' in the config.* mean 'optimizer'"),
        (tiny(), ["--vary", "num_epoch=1,2"], "arm 'num_epoch=1': .*'num_epochs'"),
        (tiny(), ["--vary", "optimizer.momentun=0,0.9"], "'momentun' in .* mean 'momentum'"),
        (tiny(), ["--vary", "optimizer.use_gc=true,maybe"], "arm 'use_gc=maybe': .* 'maybe'"),
        (tiny(), ["--vary", "model.drop=0,0.1"], "'drop' in model, did you mean 'dropout'"),
        (tiny(), ["--vary", "model.hidden_dims.1=8,9"], "index '1' in model.hidden_dims.*: 0"),
        (
            tiny(),
            ["--vary", "model.hidden_dims.0=8,x"],
            "arm 'model.hidden_dims.0=x': tiny.json and .*: model {.*}: TypeError",
        ),
        (
            tiny(),
            ["--vary", "model.output_dim=10,3"],
            "arm 'output_dim=3': tiny.json: loss {.*}: IndexError",
        ),
        (tiny(), [*GC, "--output_folder", "s3://a/b"], "must be a local folder, not 's3://a/b'"),
        (tiny(), ["--vary", "optimizer.lr.x=1,2"], "optimizer.lr is 0.1, so it has no key 'x'"),
        (
            SCHEDULED,
            ["--vary", "optimizer.lr=0.1,0.2"],
            "optimizer.lr does nothing.*; set one of its keys: name, start_value, end_value",
        ),
        (tiny() | {"test_only": True}, GC, "test_only trains nothing"),
        (tiny() | {"hooks": [{"name": "json_log"}]}, GC, "hooks.0 'json_log' would write every"),
        (
            tiny() | {"hooks": [{"name": "tensorboard_plot", "summary_writer": {"log_dir": "x"}}]},
            GC,
            "hooks.0 'tensorboard_plot' would write every run into the same folder",
        ),
        (tiny(), ["--vary", ".=1,2"], "unknown key '' in the config"),
        (SCHEDULED, ["--vary", "optimizer.param_schedulers=null,{}"], "must map options to"),
        (
            SCHEDULED,
            ["--vary", 'optimizer.param_schedulers.use_cg={"name": "step", "values": [1, 0]},{}'],
            "'use_cg' in param_schedulers .* mean 'use_gc'",
        ),
        (
            tiny(name="adam", param_schedulers={}),
            ["--vary", "optimizer.param_schedulers.use_gc={},null"],
            "'adam' would ignore param_schedulers.use_gc .*'adam_gc'",
        ),
        (
            tiny(param_schedulers={"lr": {"name": "step", "values": [1, 2]}}),
            ["--vary", "optimizer.param_schedulers.lr.num_updates=1,2"],
            "'num_updates' in .*; known: name, num_epochs, update_interval, values",
        ),
        (
            tiny() | {"dataset": {"train": SYNTHETIC}},
            ["--vary", "dataset.train.shuffle=true,false"],
            "'shuffle' in dataset.train, did you mean 'use_shuffle'",
        ),
        (tiny(), [*GC, "--effect_of", "optimizer.lr"], "'optimizer.lr' in --effect_of"),
        (tiny(), [*GC, "--effect_of", ""], "'' in --effect_of"),
        (tiny(), [*GC, "--target", "accuracy/top_5=0.9"], "'accuracy/top_5' in --target.*top_1"),
        (tiny(), [*GC, "--target", "0.9"], "'0.9' must be METER=NUMBER"),
        (tiny(), [*GC, "--target", "accuracy/top_1=nan"], "must be METER=NUMBER"),
        (tiny(), [*GC, "--target", "accuracy/top_1=97"], "accuracy/top_1 is a share in .*, not 97"),
        (tiny(), [*GC, "--seeds", "0"], "--seeds: '0' must be a number of seeds >= 1"),
        (tiny(), [*GC, "--slurm_time", "5"], "--slurm time needs --cluster slurm"),
        (
            tiny(),
            [*GC, "--sweep", "optimizer.lr=0.1:0.4:3", "--power", "1"],
            "--power with --sweep needs --confirm",
        ),
        (tiny(), [*GC, "--jobs", "0"], "--jobs: must be an integer >= 1, not 0"),
        (tiny(), [*GC, "--output_folder", "tiny.json/x"], "tiny.json is no writable folder"),
        (tiny(), [*GC, "--output_folder", "."], "holds something else than a comparison"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(here, capsys, config, flags, message):
    with pytest.raises(SystemExit) as exit_:
        main(arguments(config, *flags))
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("classy-gc compare: error: ")
    assert re.search(message, err), err
    assert err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["tiny.json"]


@given(st.sets(st.text(min_size=1) | st.sampled_from([".", "..", "a/b", "a b", "A_B", "a_b_1"])))
def test_any_name_is_a_folder_of_its_own(names):
    folders = folder_names(list(names))
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert Path("runs", folder).resolve().parent == Path("runs").resolve()
        assert not folder.startswith(".")
        assert len(folder.encode()) < 200


def test_the_first_schedule_of_a_config(here):
    Path("tiny.json").write_text(json.dumps(tiny(name="adam_gc")))
    schedule = {"name": "step", "values": [1, 0]}
    choices = [Choice("", {}), Choice("half", {"optimizer.param_schedulers.use_gc": schedule})]
    _, arm = build_arms(["tiny.json"], [choices])
    assert arm.config["optimizer"]["param_schedulers"] == {"use_gc": schedule}


def test_options_that_the_config_does_not_mention(here):
    config = tiny(name="adam_gc", param_schedulers={"lr": COSINE})
    Path("tiny.json").write_text(json.dumps(config))
    for key, value in (
        ("optimizer.gc_loc", True),
        ("optimizer.betas", [0.8, 0.9]),
        ("optimizer.param_schedulers", {"use_gc": {"name": "step", "values": [1, 0]}}),
        ("optimizer.param_schedulers.use_gc", {"name": "step", "values": [1, 0]}),
        ("optimizer.param_schedulers.lr.update_interval", "epoch"),
        ("model.dropout", 0.1),
        ("loss.label_smoothing", 0.1),
        ("clip_grad_norm", 1.0),
    ):
        arms = build_arms(["tiny.json"], [[Choice("", {}), Choice(key, {key: value})]])
        section = arms[1].config
        for part in key.split("."):
            section = section[part]
        assert section == value
