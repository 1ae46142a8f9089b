import contextlib
import json
import os
import pty
import re
import shutil
import sys
from pathlib import Path

import pytest

from classy_gc.commands import main
from classy_gc.files import locked
from tests.commands.training import (
    BIN,
    CONFIGS,
    DIGITS,
    checkpoint,
    flat,
    forked,
    run,
    short,
    train,
)
from tests.forked import command, start


def test_digits_sgd_gc_as_a_person_runs_it(tmp_path):
    (tmp_path / "short.json").write_text(json.dumps(DIGITS | {"num_epochs": 6}))
    result = run(BIN / "classy-gc", "train", "--config_file", "short.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = result.stdout.splitlines()
    assert re.fullmatch(r"Trained in \d+\.\d s", summary[0])
    train_line, test_line = summary[1:3]
    assert re.match(r"  train  loss \d\.\d{4}  accuracy/top_1 [01]\.\d{4}$", train_line)
    assert float(re.match(r"  test .*top_1 (\S+)$", test_line)[1]) > 0.97
    (output,) = tmp_path.glob("output_*")
    assert output.name.startswith("output_")
    assert summary[3].split() == ["checkpoint", str(output / "checkpoints" / "checkpoint.torch")]
    assert summary[4].split() == ["folder", str(output)]
    written = {"checkpoints", "config.json", "curves.png", "log.jsonl"}
    assert {p.name for p in output.iterdir()} - {"tensorboard"} == written
    assert len(list(output.glob("checkpoints/model_phase-*_end.torch"))) == 6
    assert "Warning" not in result.stderr
    assert '"name"' not in result.stderr  # the config is not dumped into the log


@pytest.mark.parametrize(
    ("name", "own_config"),
    [
        *((name, True) for name in ("adam_gc", "adamw_gc", "radam_gc", "plain_radam_gc")),
        ("adam_gc", False),  # only the name is changed
    ],
)
def test_other_optimizers_learn(here, capsys, name, own_config):
    config = json.loads((CONFIGS / f"digits_{name if own_config else 'sgd_gc'}.json").read_text())
    config["optimizer"]["name"] = name
    config["dataset"]["train"]["num_samples"] = 480
    config |= {"use_gpu": False, "num_epochs": 10}
    assert train(config, "--skip_tensorboard", "--checkpoint_folder", "checkpoints") == 0
    history = checkpoint("checkpoints")["hooks"]["TrainingCurvesHook"]["history"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert float(re.search(r"test .*top_1 (\S+)", capsys.readouterr().out)[1]) > 0.8


def test_same_seed_same_weights_bit_for_bit(here):
    states = []
    for i, seed in enumerate((3, 3, 4)):
        flags = ("--checkpoint_folder", f"run{i}", "--seed", seed, "--skip_tensorboard")
        assert train(short(), *flags) == 0
        states.append(flat(checkpoint(f"run{i}")["base_model"]))
    assert states[0] == states[1]
    weights = [k for k in states[0] if k.endswith("0.weight")]
    assert weights
    assert all(states[0][k] != states[2][k] for k in weights)


def test_seed_orders_the_data(here):
    """With equal weights at the start and no augmentation, only the order can differ."""
    from classy_gc.commands.cli import build_parser
    from classy_gc.commands.seeded_task import build_seeded_task

    orders = []
    config = short()
    del config["dataset"]["train"]["transforms"][0]["transforms"][0]
    for seed in (0, 0, 1):
        flags = ["--config_file", "digits_sgd_gc.json", "--seed", str(seed)]
        args = build_parser().parse_args(["train", *flags])
        task = build_seeded_task(args, config)
        task.train, task.train_phase_idx = True, 0
        (loader,) = (task.build_dataloader_from_dataset(task.datasets["train"]),)
        orders.append(list(loader.sampler))
    assert orders[0] == orders[1] != orders[2]
    # The default is the order of classy_train.py.
    assert orders[0] == list(task.datasets["train"].iterator().sampler)


def test_resumed_run_ends_as_the_uninterrupted_one(here):
    config = short(epochs=3)
    assert train(config, "--checkpoint_folder", "whole", "--skip_tensorboard") == 0
    # What a run that was killed in its second epoch leaves behind.
    Path("killed").mkdir()
    shutil.copy("whole/model_phase-0_end.torch", "killed/checkpoint.torch")
    flags = ("--checkpoint_load_path", "killed", "--checkpoint_folder", "resumed")
    assert train(config, *flags, "--skip_tensorboard") == 0
    whole, resumed = checkpoint("whole"), checkpoint("resumed")
    for part in ("base_model", "optimizer", "losses", "meters"):
        assert flat(resumed[part]) == flat(whole[part])
    hooks = [state["hooks"]["TrainingCurvesHook"] for state in (whole, resumed)]
    assert hooks[0] == hooks[1]
    assert len(hooks[0]["history"]) == 5  # the last test comes after the last checkpoint


def test_classy_visions_own_rmsprop_tf_resumes(here):
    config = short(epochs=2) | {"optimizer": {"name": "rmsprop_tf", "lr": 0.01, "momentum": 0.9}}
    assert train(config, "--checkpoint_folder", "whole", "--skip_tensorboard") == 0
    flags = ("--checkpoint_load_path", "whole/model_phase-0_end.torch", "--skip_tensorboard")
    assert train(config, *flags, "--checkpoint_folder", "resumed") == 0
    whole, resumed = (flat(checkpoint(name)["base_model"]) for name in ("whole", "resumed"))
    assert resumed == whole


def test_hooks_of_the_config_take_the_place_of_the_defaults(here_with_curves):
    names = {"training_curves": "curves.png", "json_log": "log.jsonl"}
    config = short() | {"hooks": [{"name": name, "folder": "mine"} for name in names]}
    assert train(config, "--skip_tensorboard", "--checkpoint_folder", "checkpoints") == 0
    for file in names.values():
        assert Path("mine", file).is_file()
        assert not list(here_with_curves.glob(f"output_*/{file}"))


def test_flags_that_give_way_to_hooks_of_the_config_say_so(here, capsys):
    names = {"rolling_checkpoint": "checkpoint_period", "loss_lr_meter_logging": "log_freq"}
    flags = [text for flag in names.values() for text in (f"--{flag}", 2)]
    for own in (True, False):
        config = short() | {"hooks": [{"name": name} for name in names] if own else []}
        assert train(config, "--skip_tensorboard", "--output_folder", "run", *flags) == 0
        warnings = re.findall(r"--(\w+) is not used: the config has ", capsys.readouterr().err)
        assert sorted(warnings) == (sorted(names.values()) if own else [])
        assert train(config, "--skip_tensorboard", "--output_folder", "run") == 0
        assert "is not used" not in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["flag", None])
def test_checkpoints_of_the_config_take_the_place_of_the_default(here, folder):
    """Classy Vision's own hook writes into its own folder unless the flag names another."""
    config = short() | {"hooks": [{"name": "checkpoint", "checkpoint_folder": "own"}]}
    flags = ("--checkpoint_folder", folder) if folder else ()
    assert train(config, "--skip_tensorboard", *flags) == 0
    state = checkpoint(folder or "own")
    assert "CheckpointHook" in state["hooks"]
    assert "RollingCheckpointHook" not in state["hooks"]
    assert Path("own").exists() == (folder is None)
    assert not list(here.glob("output_*/checkpoints"))
    # A run resumes from what it wrote, be it the folder or a file.
    for path in (folder or "own", Path(folder or "own", "model_phase-0_end.torch")):
        flags = ("--checkpoint_load_path", path, "--output_folder", "resumed")
        assert train(short(epochs=2), "--skip_tensorboard", *flags) == 0
        assert checkpoint("resumed/checkpoints")["train_phase_idx"] == 1


def test_checkpoint_period_counts_train_phases_and_the_last_is_saved(here):
    flags = ("--checkpoint_period", 2, "--output_folder", "run", "--skip_tensorboard")
    assert train(short(epochs=3), *flags) == 0
    names = {path.name for path in Path("run/checkpoints").iterdir()}
    assert names == {"checkpoint.torch", "model_phase-2_end.torch", "model_phase-4_end.torch"}
    assert checkpoint("run/checkpoints")["train_phase_idx"] == 2


def test_only_what_is_tested_is_asked_of_a_test_only_config(here, capsys):
    config = short() | {"test_only": True, "num_epochs": 2.5, "simulated_global_batchsize": 64}
    del config["optimizer"], config["dataset"]["train"]
    assert train(config, "--skip_tensorboard") == 0
    assert capsys.readouterr().out.startswith("Tested in")


def test_a_folder_that_another_run_writes_into(here, capsys):
    flags = ("--output_folder", "run", "--skip_tensorboard")
    assert train(short(samples=32), *flags) == 0
    log = Path("run/log.jsonl").read_text()
    for folder in ("run", "run/checkpoints"):
        with locked(Path(folder)), pytest.raises(SystemExit) as exit_:
            train(short(samples=32), *flags)
        assert exit_.value.code == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
        assert line == f"classy-gc train: error: {here / folder}: another run writes there now"
        assert Path("run/log.jsonl").read_text() == log
    assert train(short(samples=32), *flags) == 0


@pytest.mark.parametrize(
    "name", ["config.json", "log.jsonl", "curves.png", "checkpoints/checkpoint.torch"]
)
def test_a_folder_in_place_of_a_file_is_told_before_training(here, capsys, name):
    Path("run", name).mkdir(parents=True)
    with pytest.raises(SystemExit):
        train(short(samples=32), "--output_folder", "run", "--skip_tensorboard")
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert f"error: {here / 'run' / name} is a folder, but a file must be written there" in line
    assert "train phase" not in line


def test_an_output_folder_that_cannot_be_written_is_told_first(here, capsys):
    Path("file").touch()
    for flag in ("--output_folder", "--checkpoint_folder"):
        with pytest.raises(SystemExit):
            train({"of": "no use"}, flag, "file/run")
        assert f"error: {flag}: folder file/run: file is no writable folder" in (
            capsys.readouterr().err
        )


def test_a_progress_bar_that_cannot_be_shown_is_told_first(here, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        train(short(), "--show_progress", "--output_folder", "run")
    assert "error: --show_progress needs progressbar2" in capsys.readouterr().err
    assert not Path("run").exists()


def test_nothing_left_to_train_is_told(here, capsys):
    flags = ("--output_folder", "run", "--skip_tensorboard")
    assert train(short(epochs=2, samples=32), *flags) == 0
    assert "writes to" in capsys.readouterr().err
    for epochs in (2, 1):
        flags = ("--checkpoint_load_path", "run/checkpoints", *flags)
        assert train(short(epochs=epochs, samples=32), *flags) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"Nothing was left to train: 2 of {epochs} epochs were done\n")
        assert checkpoint("run/checkpoints")["train_phase_idx"] == 1


def test_flags_are_those_of_classy_train():
    from classy_vision.generic.opts import get_parser

    from classy_gc.commands.cli import build_parser

    def flags(parser):
        return {a.option_strings[-1]: a.nargs for a in parser._actions}

    file = str(CONFIGS / "digits_sgd_gc.json")
    args = build_parser().parse_args(["train", "--config", file])
    stock, ours = flags(get_parser()), flags(args.parser)
    assert {k: v for k, v in ours.items() if k in stock} == stock
    assert set(ours) - set(stock) == {"--seed", "--output_folder", "--set"}
    stock, ours = get_parser().parse_args(["--config", file]), args
    assert vars(ours).pop("parser").prog == "classy-gc train"
    del ours.run
    assert vars(ours) == {
        **vars(stock),
        "seed": 0,
        "output_folder": "",
        "set": [],
        "log_freq": None,
        "checkpoint_period": None,
    }


def test_progress_bar_on_a_terminal(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(short()))
    ours, its = pty.openpty()
    process = start(
        *(command, "train", "--config_file", "config.json", "--skip_tensorboard"),
        cwd=tmp_path,
        output=("/dev/null", os.ttyname(its)),
    )
    os.set_blocking(ours, False)
    seen = b""
    while not seen or process.is_alive():
        process.join(0.05)
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(ours, 1024):
                seen += chunk
    os.close(its)
    os.close(ours)
    seen = re.sub(rb"\x1b\[[0-9;]*m", b"", seen)  # without colours
    assert process.exitcode == 0, seen.decode()
    assert re.search(rb"train 1 100% \(3 of 3\)", seen)
    assert re.search(rb"test  1 100% \(1 of 1\)", seen)
    assert b"Synced meters: [0] train phase 0" in seen
    assert b"Approximate meters" not in seen  # they would tear the bar


def changed(path, value):
    """The short config with one key (a dotted path) set, or deleted where ``value`` is None."""
    config = short()
    *parents, key = (int(x) if x.isdigit() else x for x in path.split("."))
    section = config
    for parent in parents:
        section = section[parent]
    if value is None:
        del section[key]
    else:
        section[key] = value
    return config


ROLLING = {"name": "rolling_checkpoint", "save_best": "top_1"}
STOCK = {"name": "checkpoint", "checkpoint_folder": "stock"}
TENSORBOARD = {"name": "tensorboard_plot"}
TEXT_LOG = {"name": "loss_lr_meter_logging", "log_freq": 0}
JSON_LOG = {"name": "json_log", "folder": "config.json/sub"}
EMA = {"name": "ema_model_weights", "decay": 0.9}
SCRIPT = {"name": "torchscript", "torchscript_folder": "no"}
VIDEO = {"video_accuracy": {"topk": [1], "clips_per_video_train": 1, "clips_per_video_test": 2}}
SYNTHETIC = {
    "name": "synthetic_image",
    **{"batchsize_per_replica": 4, "num_classes": 10, "crop_size": 8, "class_ratio": 0.5},
    **{"num_samples": 0, "seed": 0, "use_shuffle": True},
    "transforms": DIGITS["dataset"]["train"]["transforms"],
}
WARM_UP = {
    "name": "composite",
    "schedulers": [{"name": "constant", "value": 0.1}, {"name": "constant", "value": 0.2}],
    "lengths": ["500 steps", "rest"],
}
HEAD = {"name": "fully_conected", "unique_id": "h", "num_classes": 10, "fork_block": "block1-0"}


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (None, ["--config_file", "nowhere.json"], "--config_file: nowhere.json: No such file"),
        (None, ["--config_file", "."], r"--config_file: \.: Is a directory"),
        ("{'name': 1}", [], "config.json: Expecting property name .* line 1 column 2"),
        ("[1]", [], r"config.json: the config must be an object with keys, not \[1\]"),
        (("name", "clasification_task"), [], "'clasification_task'.*'classification_task'"),
        (("num_epoch", 3), [], "unknown key 'num_epoch' in the config.*'num_epochs'"),
        (("num_epochs", None), [], "missing key 'num_epochs' in the config"),
        (("num_epochs", 1.5), [], "num_epochs must be whole phases, 1 an epoch, not 1.5"),
        (("num_epochs", "ten"), [], "num_epochs must be a number > 0, not 'ten'"),
        (("test_phase_period", 2.5), [], "test_phase_period must be an integer > 0, not 2.5"),
        (("clip_grad_norm", -1), [], "clip_grad_norm must be a number > 0 or null, not -1"),
        (("test_only", "false"), [], "test_only must be true or false, not 'false'"),
        (("simulated_global_batchsize", "64"), [], "must be an integer > 0 or null, not '64'"),
        (("dataset.train", None), [], "missing key 'train' in dataset"),
        (("dataset.val", {}), [], "unknown key 'val' in dataset; known: train, test"),
        (("dataset.train.name", "digit"), [], "'digit' in dataset.train.* mean 'digits'"),
        (("dataset.train.batchsize_per_replica", 0), [], "train.batchsize_per_.* must .* not 0"),
        (("dataset.test.spilt", "x"), [], "unknown key 'spilt' in dataset 'digits'.*'split'"),
        (("dataset.test.transforms", [{"name": "ToTensr"}]), [], "Totensr"),
        (("loss", "CrossEntropyLoss"), [], "loss must be an object .* not 'CrossEntropyLoss'"),
        (("loss.name", "CrossEntropy"), [], "'CrossEntropy' in loss.* mean 'CrossEntropyLoss'"),
        (("loss.smoothing", 0.1), [], "loss {.*}: TypeError: .*'smoothing'"),
        (("model.name", "resnett"), [], "'resnett' in model, did you mean 'resnet"),
        (("model.num_blocks", None), [], 'models.resnext, line .*"num_blocks" in config'),
        (("model.heads", [HEAD]), [], "'fully_conected' in model.heads.0.* 'fully_connected'"),
        (("meters", {"acuracy": {}}), [], "unknown meter 'acuracy' in meters.*'accuracy'"),
        (("meters", {"accuracy": {}}), [], "missing key 'topk'"),
        (("meters", {"accuracy": {"topk": [11]}}), [], r"accuracy {.*\[11\]}: selected index k"),
        (
            ("meters", {"accuracy": {"topk": [1], "k": 1}}),
            [],
            "unknown key 'k' in meter 'accuracy'",
        ),
        (("model.heads", {"name": "h"}), [], r"model.heads must be a list, not {'name': 'h'}"),
        (("hooks", {"name": "json_log"}), [], "hooks must be a list or null, not {'name'"),
        (("hooks", [{"name": "curves"}]), [], "unknown name 'curves' in hooks.0."),
        (("hooks", [ROLLING]), [], "unknown name 'top_1' in save_best of hook"),
        (("hooks", [TENSORBOARD | {"log_perod": 1}]), [], "'log_perod' in hook"),
        (
            ("hooks", [TENSORBOARD | {"log_period": 0}]),
            [],
            "log_period must be an integer > 0, not",
        ),
        (("hooks", [TENSORBOARD | {"summary_writer": None}]), [], "must be an object, not None"),
        (("hooks", [TEXT_LOG]), [], r"hooks\[0\].log_freq must be an integer > 0 or null, not 0"),
        (("hooks", [JSON_LOG]), [], "/config.json/sub: .*/config.json is no writable folder"),
        (("hooks", [STOCK, {"name": "rolling_checkpoint"}]), [], "one of them can save"),
        (("distributed", {"bucket_cap": 1}), [], "'bucket_cap' in distributed, .* 'bucket_cap_mb'"),
        (
            json.dumps(short() | {"distributed": None}),
            [],
            "distributed must be an object, not None",
        ),
        (
            ("distributed", {"batch_norm_sync_mode": "on"}),
            [],
            "distributed.batch_norm_sync_mode must be one of disabled, pytorch, apex, not 'on'",
        ),
        (("mixup", {"alpha": 1, "cutmix": 1}), [], "unknown key 'cutmix' in mixup"),
        (("mixup", {"alpha": -1}), [], "mixup.alpha must be a number >= 0, not -1"),
        (("mixup", {"alpha": 1, "mode": "x"}), [], "mixup.mode must be one of batch, .* not 'x'"),
        (("mixup", {"alpha": 1}), [], "config.json: missing key 'num_classes' in mixup"),
        (("mixup", {"alpha": 1, "num_classes": 3}), [], r"error: config.json: mixup {.*}: "),
        (("model.heads.0.in_plane", 31), [], r"error: config.json: model.heads\[0\] {.*31}: "),
        (("model.heads.0.num_classes", 3), [], "error: config.json: loss {.*}: IndexError: "),
        (("model.heads.0.fork_block", "x"), [], "error: config.json: model: x "),
        (("model.num_blocks", []), [], "error: config.json: model: IndexError: "),
        (("loss", {"name": "MSELoss"}), [], 'error: config.json: loss {"name": "MSELoss"}: '),
        (("loss.weight", [1, 2]), [], r"error: config.json: loss {.*\[1, 2\]}: "),
        (("meters", VIDEO), [], "error: config.json: meters.video_accuracy {.*}: "),
        (("amp_args", True), [], "amp_args must be an object or null, not True"),
        (("amp_args", {"amp_type": "pytorch"}), [], "error: config.json: amp_args {.*}: "),
        (("hooks", [EMA]), [], r"config.json: hooks\[0\].device must be cpu without CUDA, not"),
        (
            ("hooks", [{"name": "checkpoint"}]),
            [],
            r"hooks\[0\] {.*}: TypeError: .*'checkpoint_folder'",
        ),
        (("hooks", [SCRIPT]), [], "error: config.json: hook 'torchscript': .*'no'"),
        (
            ("hooks", [SCRIPT | {"use_traces": 1}]),
            [],
            r"hooks\[0\] {.*}: TypeError: .*'use_traces'",
        ),
        (
            ("dataset.train", SYNTHETIC),
            [],
            r"error: config.json: dataset.train: there is no sample",
        ),
        (
            ("dataset.train", SYNTHETIC | {"num_samples": None}),
            [],
            r"error: config.json: dataset.train: TypeErr",
        ),
        (("dataset.train.transforms.0.transforms.0.size", 99), [], "dataset.train: Required crop"),
        (("dataset.train.transforms.0.transforms.0.size", "x"), [], "dataset.train: TypeError"),
        (("dataset.test.transforms.0.transforms.1.mean", [0, 1]), [], "dataset.test: The size of"),
        ((), ["--set", "model.dropuot=1"], "--set model.dropuot=1: unknown key 'dropuot' in model"),
        ((), ["--profiler"], "hook 'profiler': TypeError: .*'use_cuda'"),
        (("custom_imports", ["no_such_module"]), [], "'no_such_module' cannot be imported"),
        (("optimizer", None), [], "missing key 'optimizer'"),
        (("optimizer.name", "sdg_gc"), [], "'sdg_gc' in optimizer, did you mean 'sgd_gc'"),
        (("optimizer.weight_decay", -1), [], "'sgd_gc': weight_decay must .*>= 0, not -1"),
        (
            ("optimizer.param_schedulers.lr", WARM_UP),
            [],
            "error: config.json: optimizer.param_schedulers.lr: lengths must fill the training",
        ),
        (("optimizer.beta", 1), [], "unknown key 'beta' in optimizer 'sgd_gc'"),
        (("simulated_global_batchsize", 33), [], r"batch size \(32\) must divide .* \(33\)"),
        ((), ["--seed", "-1"], "--seed: must be an integer from 0 to 4294967295, not -1"),
        ((), ["--seed", "4294967296"], "--seed: must be .* from 0 to .*, not 4294967296"),
        ((), ["--seed", "x"], "--seed: must be an integer from 0 to .*, not 'x'"),
        ((), ["--log_freq", "0"], "--log_freq: must be an integer >= 1, not 0"),
        ((), ["--checkpoint_period", "0"], "--checkpoint_period: must be .* not 0"),
        ((), ["--image_backend", "pil"], "'pil'|backend"),
        ((), ["--video_backend", "foo"], "video.?backend"),
        ((), ["--distributed_backend", "dpp"], "--distributed_backend: invalid choice: 'dpp'"),
        ((), ["--distributed_backend", "ddp"], "environment variable RANK expected, but not set"),
        ((), ["--checkpoint_load_path", "no"], "--checkpoint_load_path: there is no checkpoint no"),
        ((), ["--checkpoint_load_path", "."], "no checkpoint ./checkpoint.torch"),
        (
            (),
            ["--checkpoint_load_path", "config.json"],
            "config.json is not a checkpoint of Classy",
        ),
        ((), ["--pretrained_checkpoint_path", "config.json"], "is for fine_tuning, not"),
        ((), ["--checkpoint_folder", "config.json/sub"], "config.json/sub"),
        ((), ["--checkpoint_folder", "s3://a/b"], "--checkpoint_folder s3://a/b: no path handler"),
        (
            (),
            ["--checkpoint_load_path", "s3://a"],
            "--checkpoint_load_path s3://a: no path handler",
        ),
        (
            (),
            ["--output_folder", "s3://a/b"],
            "--output_folder: folder must be a local .* not 's3://a/b'",
        ),
        (("hooks", [STOCK | {"checkpoint_folder": "s3://a"}]), [], "s3://a: no path handler"),
        (
            ("hooks", [{"name": "json_log", "folder": "s3://a"}]),
            [],
            "must be a local path, not 's3:",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(here, capsys, config, flags, message):
    if isinstance(config, str):
        text = config
    else:
        text = json.dumps(changed(*config) if config else short())
    Path("config.json").write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--config_file", "config.json", *flags])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert lines[0].startswith("classy-gc train: error: ")
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in err
    assert [path.name for path in here.iterdir()] == ["config.json"]


@pytest.mark.parametrize("optimizer", ["SGD", "NAdam"])
def test_checkpoint_of_another_optimizer_is_one_line(here, capsys, optimizer):
    assert train(short(optimizer="adam_gc"), "--output_folder", "old", "--skip_tensorboard") == 0
    config = short(epochs=2) | {"optimizer": {"name": "torch_gc", "optimizer": optimizer}}
    flags = ("--checkpoint_load_path", "old/checkpoints", "--output_folder", "new")
    with pytest.raises(SystemExit):
        train(config, *flags)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert "checkpoint old/checkpoints does not fit config.json: optimizer 'torch_gc'" in line
    assert f"exp_avg, exp_avg_sq, and {optimizer} has" in line
    assert not Path("new").exists()


@pytest.fixture(scope="module")
def classy_project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classy_project")
    assert run(BIN / "classy-project", "project", cwd=folder).returncode == 0
    return folder / "project"


def test_unmodified_classy_train_after_the_one_line_of_set_up(tmp_path, classy_project):
    project = shutil.copytree(classy_project, tmp_path / "project")
    stock = Path(sys.prefix) / "classy_vision" / "classy_train.py"
    assert (project / "classy_train.py").read_bytes() == stock.read_bytes()
    (project / "hydra.py").write_text("raise ImportError")  # Hydra would give it other flags
    (project / "optimizers").mkdir()
    (project / "optimizers" / "__init__.py").write_text("import classy_gc\n")
    path = project / "configs" / "template_config.json"
    config = json.loads(path.read_text())
    config["optimizer"] |= {"name": "sgd_gc", "use_gc": True}
    for dataset in config["dataset"].values():  # for time alone
        dataset |= {"num_samples": 64, "num_workers": 0}
    path.write_text(json.dumps(config))
    result = run(
        *(sys.executable, "classy_train.py", "--config_file", "configs/template_config.json"),
        *("--skip_tensorboard", "--checkpoint_folder", "saved"),
        cwd=project,
    )
    assert result.returncode == 0, result.stderr
    assert "Training successful!" in result.stderr
    groups = checkpoint(project / "saved")["optimizer"]["optim"]["param_groups"]
    assert all(group["use_gc"] for group in groups)


def test_packages_beside_classy_train_are_imported(tmp_path, classy_project):
    """Packages of the project that classy-project makes; one that fails is told, others work."""
    project = shutil.copytree(classy_project, tmp_path / "project")
    for name, code in (("broken", "import no_such_module"), ("optim_", "print('imported')")):
        (project / name).mkdir()
        (project / name / "__init__.py").write_text(code)
    (project / "data").mkdir()  # is no package
    config = json.loads((project / "configs" / "template_config.json").read_text())
    assert config["dataset"]["train"]["name"] == "my_dataset"
    for dataset in config["dataset"].values():  # for time alone
        dataset |= {"num_samples": 64, "num_workers": 0}
    (project / "config.json").write_text(json.dumps(config))
    result = forked("--skip_tensorboard", cwd=project)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("imported\nTrained in")
    (warning,) = [line for line in result.stderr.splitlines() if "cannot be imported" in line]
    assert "beside classy_train.py: 'broken' cannot" in warning
    assert "ModuleNotFoundError: " in warning
    assert "'no_such_module'" in warning
    (project / "classy_train.py").unlink()
    result = forked(cwd=project)
    assert "unknown name 'my_dataset' in dataset.train" in result.stderr
