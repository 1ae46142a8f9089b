"""Which checkpoints a run starts from, and where it saves its own."""

import io
import re
from pathlib import Path

import pytest
import torch

from tests.commands.training import checkpoint, short, train

HEADS = (
    r"the checkpoint has the heads \['block1-0.default_head'\]; "
    r"the config's model has \['block1-0.other'\]"
)


@pytest.mark.parametrize("task", ["classification_task", "fine_tuning"])
@pytest.mark.parametrize(
    ("model", "head", "message"),
    [
        (
            {"init_planes": 8},
            {"in_plane": 16},
            r"fc.weight: .*\[10, 32\]\) from checkpoint, .* in current model .*\[10, 16\]",
        ),
        ({}, {"unique_id": "other"}, HEADS),
        ({"num_blocks": [1, 2]}, {}, r"Missing key\(s\) in state_dict: \"blocks.1.block1-1"),
        (
            {},
            {"num_classes": 11},
            r"fc.weight: .*\[10, 32\]\) from .* in current model .*\[11, 32\]",
        ),
    ],
    ids=["width", "head", "depth", "classes"],
)
def test_checkpoint_of_another_model_is_one_line(here, capsys, task, model, head, message):
    config = short(samples=32)
    assert train(config, "--checkpoint_folder", "old", "--skip_tensorboard") == 0
    capsys.readouterr()
    config["model"] |= model
    config["model"]["heads"][0] |= head
    flag = "checkpoint_load_path" if task == "classification_task" else "pretrained_checkpoint_path"
    with pytest.raises(SystemExit):
        train(config | {"name": task}, f"--{flag}", "old", "--checkpoint_folder", "new")
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert re.search("error: checkpoint old does not fit config.json: .*" + message, err), err
    assert "optimizer" not in err
    assert not Path("new").exists()


def test_heads_that_are_reset_need_not_fit(here, capsys):
    assert train(short(samples=32), "--checkpoint_folder", "old", "--skip_tensorboard") == 0
    config = short(samples=32) | {"name": "fine_tuning", "reset_heads": True}
    config["model"]["heads"][0] |= {"unique_id": "other", "num_classes": 11}
    flags = ("--pretrained_checkpoint_path", "old", "--skip_tensorboard")
    assert train(config, *flags, "--output_folder", "new") == 0
    config["model"]["num_blocks"] = [1, 2]
    with pytest.raises(SystemExit):
        train(config, *flags)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
    assert 'Missing key(s) in state_dict: "blocks.1.block1-1' in line
    assert "heads" not in line


def test_a_job_that_always_names_its_own_checkpoints(here, capsys):
    """Like a job that is requeued: the first time there is no checkpoint yet."""
    for flags, folder in (
        (("--output_folder", "run"), "run/checkpoints"),
        (("--checkpoint_folder", "saved", "--output_folder", "other"), "./saved/"),
    ):
        for epochs in (1, 2):
            again = ("--checkpoint_load_path", folder, "--skip_tensorboard")
            assert train(short(epochs=epochs, samples=32), *flags, *again) == 0
            message = f"no checkpoint in {here / folder} yet: training starts at the beginning"
            assert (message in capsys.readouterr().err) == (epochs == 1)
            assert checkpoint(folder)["train_phase_idx"] == epochs - 1
            log = Path(flags[-1], "log.jsonl").read_text()
            assert len(log.splitlines()) == 2 * epochs
    # A test has nothing to start from, and the other folder is not the run's own.
    for test_only in (True, False):
        folder = "new/checkpoints" if test_only else "run/checkpoints/old"
        flags = ("--output_folder", "new", "--checkpoint_load_path", folder)
        with pytest.raises(SystemExit):
            train(short() | {"test_only": test_only}, *flags)
        assert f"there is no checkpoint {folder}" in capsys.readouterr().err
        assert not Path("new").exists()


def test_checkpoints_through_a_path_handler(here_with_curves, box, capsys):
    """Saved, resumed and tested; the log and the curves stay on the local disk."""
    flags = ("--skip_tensorboard", "--output_folder", "run", "--checkpoint_load_path", "box://a/b")
    for epochs in (1, 2):
        assert train(short(epochs=epochs), *flags, "--checkpoint_folder", "box://a/b") == 0
        assert "checkpoint  box://a/b/checkpoint.torch" in capsys.readouterr().out
        assert checkpoint(box / "a" / "b")["train_phase_idx"] == epochs - 1
    assert {path.name for path in here_with_curves.iterdir()} == {"config.json", "run"}
    assert {path.name for path in Path("run").iterdir()} == {
        "config.json",
        "curves.png",
        "log.jsonl",
    }
    assert train(short() | {"test_only": True}, *flags) == 0
    stock = [{"name": "checkpoint", "checkpoint_folder": "box://stock"}]
    assert train(short() | {"hooks": stock}, "--skip_tensorboard", "--output_folder", "run") == 0
    assert checkpoint(box / "stock")["train_phase_idx"] == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(short(), "--checkpoint_load_path", "box://nothing")
    assert "there is no checkpoint box://nothing\n" in capsys.readouterr().err


def test_a_stock_optimizer_says_what_it_ignores_as_it_resumes(here, capsys):
    config = short()
    config["optimizer"] = {"name": "sgd_gc", "lr": 0.1, "use_gc": True}
    assert train(config, "--output_folder", "first", "--skip_tensorboard") == 0
    config["optimizer"] = {"name": "sgd", "lr": 0.3}
    capsys.readouterr()
    resume = ("--checkpoint_load_path", "first/checkpoints", "--skip_tensorboard")
    assert train(config | {"num_epochs": 2}, *resume, "--output_folder", "second") == 0
    assert (
        "optimizer 'sgd': the config wins over the checkpoint: use_gc is False (was True); "
        "the checkpoint wins over the config: lr stays 0.1 (config: 0.3)"
    ) in capsys.readouterr().err


def test_fewer_samples_as_a_run_resumes_are_one_line(here, capsys):
    """Classy Vision would stop in the middle, and the log would have lost lines."""
    lr = {"name": "linear", "start_value": 0.4, "end_value": 0.0}
    config = short(epochs=3, samples=96)
    config["optimizer"]["param_schedulers"] = {"lr": lr}
    assert train(config, "--output_folder", "run", "--skip_tensorboard") == 0
    log = Path("run/log.jsonl").read_text()
    config["dataset"]["train"]["num_samples"] = 32
    half = ("--checkpoint_load_path", "run/checkpoints/model_phase-2_end.torch")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(config, "--output_folder", "run", *half)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
    assert "192 samples in 2 epochs, which would be 64 with the data and batches of this" in line
    assert Path("run/log.jsonl").read_text() == log


def test_more_samples_as_a_run_resumes_are_told(here, capsys):
    assert train(short(epochs=2), "--output_folder", "run", "--skip_tensorboard") == 0
    capsys.readouterr()
    config = short(epochs=3, samples=192)
    half = ("--checkpoint_load_path", "run/checkpoints", "--skip_tensorboard")
    assert train(config, "--output_folder", "other", *half) == 0
    told = capsys.readouterr().err
    assert "192 samples in 2 epochs, which would be 384 with" in told
    assert "its schedules continue at 33.3% of the training" in told
    # The same data and batches: no warning.
    assert train(short(epochs=3), "--output_folder", "third", *half) == 0
    assert "schedules continue" not in capsys.readouterr().err


def test_fine_tuning_without_a_checkpoint_is_one_line(here, capsys):
    with pytest.raises(SystemExit):
        train(short() | {"name": "fine_tuning"}, "--output_folder", "run")
    assert (
        "error: config.json: Need a pretrained checkpoint for fine tuning"
        in capsys.readouterr().err
    )
    assert not Path("run").exists()


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


WHOLE = saved({"classy_state_dict": {"base_model": {"weight": torch.ones(64)}}})
WEIGHTS = WHOLE.index(torch.ones(64).numpy().tobytes())
# The attributes, which then call it a directory; torch.load returns the memory unchecked.
RECORD = WHOLE.index(b"PK\1\2", WHOLE.index(b"PK\1\2") + 1)


def flipped(position, bit=1):
    changed = bytearray(WHOLE)
    changed[position] ^= bit
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty or cut off"),
        (b"epoch,loss\n1,2\n", "it begins with b'epoch,loss"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "it begins with b'version https://git",
        ),
        (b"<!DOCTYPE html><html></html>", "it begins with b'<!DOCTYPE html"),
        (WHOLE[:3], "it is empty or cut off"),
        (WHOLE[: len(WHOLE) // 2], "it is empty or cut off"),
        (WHOLE[:-1], "it is empty or cut off"),
        (flipped(WEIGHTS + 40), r"damaged: its record \S+/data/0 has a wrong checksum"),
        (flipped(RECORD + 38, 0x10), r"it is damaged: its record \S+ has a wrong checksum"),
        (saved([1, 2]), "its classy_state_dict is None"),
        (saved({"state_dict": {}}), "its classy_state_dict is None"),
        (saved({"classy_state_dict": None}), "its classy_state_dict is None"),
        (saved({"classy_state_dict": [1]}), r"its classy_state_dict is \[1\]"),
        (saved({"classy_state_dict": {}}), "its classy_state_dict.base_model is 'missing'"),
        (WHOLE, "its classy_state_dict.train is 'missing'"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_file_that_is_no_checkpoint_is_one_line(here, capsys, content, problem):
    Path("file").write_bytes(content)
    with pytest.raises(SystemExit):
        train(short(), "--checkpoint_load_path", "file", "--output_folder", "run")
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    start = "_load_path: file is not a checkpoint of Classy Vision: "
    assert re.search(f"{start}.*{problem}", line), line
    assert not Path("run").exists()


def test_an_old_file_of_torch_that_is_cut_off_is_one_line(here, capsys):
    old = saved(
        {"classy_state_dict": {"base_model": torch.ones(2)}}, _use_new_zipfile_serialization=False
    )
    Path("file").write_bytes(old[:-3])
    with pytest.raises(SystemExit):
        train(short(), "--checkpoint_load_path", "file")
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert re.search(r"_path: file cannot be read: \w*Error: ", line), line


@pytest.mark.parametrize("optimizer", ["sgd_gc", "sgd"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["base_model"].clear(), "has the heads []; the config's model has ["),
        (lambda state: state.pop("hooks"), "its classy_state_dict.hooks is 'missing'"),
        (lambda state: state.pop("meters"), "its classy_state_dict.meters is 'missing'"),
        (lambda state: state.update(train="yes"), "its classy_state_dict.train is 'yes'"),
        (lambda state: state.update(losses=None), "its classy_state_dict.losses is None"),
        (lambda state: group_of(state).update(lr="x"), "lr of the checkpoint must be a number"),
        (lambda state: group_of(state).update(momentum=None), "momentum of the checkpoint must be"),
        (lambda state: state["hooks"].update(JSONLogHook=None), "does not fit config.json"),
    ],
)
def test_a_checkpoint_that_somebody_changed_is_one_line(here, capsys, optimizer, change, message):
    config = short(samples=32)
    config["optimizer"] = {"name": optimizer, "lr": 0.1, "momentum": 0.9}
    assert train(config, "--output_folder", "old", "--skip_tensorboard") == 0
    content = torch.load("old/checkpoints/checkpoint.torch")
    change(content["classy_state_dict"])
    torch.save(content, "changed")
    capsys.readouterr()
    flags = ("--checkpoint_load_path", "changed", "--output_folder", "new", "--skip_tensorboard")
    with pytest.raises(SystemExit) as exit_:
        train(config | {"num_epochs": 2}, *flags)
    assert exit_.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert message in line


def group_of(state):
    return state["optimizer"]["optim"]["param_groups"][0]
