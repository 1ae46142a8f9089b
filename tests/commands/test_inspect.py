import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from classy_vision.generic.util import get_checkpoint_dict
from classy_vision.tasks import build_task
from PIL import Image

import classy_gc  # noqa: F401
from classy_gc.commands import main

CONFIGS = Path(__file__).parents[2] / "configs"
DIGITS = json.loads((CONFIGS / "digits_sgd_gc.json").read_text())
WORDS = """
from classy_vision.models import ClassyModel, register_model
from torch import nn

@register_model("test_inspect_words")
class Words(ClassyModel):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(3, 4, sparse=True), nn.Linear(4, 10)

    @classmethod
    def from_config(cls, config):
        return cls()

    def forward(self, x):
        return self.head(self.words((x.flatten(1) > 0).long()).mean(1))
"""
TOKENS = """
import torch
from classy_vision.models import ClassyModel, register_model
from torch import nn

@register_model("test_inspect_tokens")
class Tokens(ClassyModel):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 3, 8, 8))
        self.ln, self.head = nn.LayerNorm([3, 8, 8]), nn.Linear(192, 10)

    @classmethod
    def from_config(cls, config):
        return cls()

    def forward(self, x):
        return self.head(self.ln(x * self.token).flatten(1))
"""
HEAD = "_heads.block1-0.default_head.fc.weight"


def digits(**optimizer):
    config = json.loads(json.dumps(DIGITS)) | {"use_gpu": False}
    config["optimizer"] = {**config["optimizer"], **optimizer}
    return config


def inspected(capsys, config, *flags):
    """The rows of the table by parameter, and the lines below it."""
    Path("config.json").write_text(json.dumps(config))
    assert main(["inspect", "--config_file", "config.json", *map(str, flags)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["parameter", "shape", "group", "removed", "GC"]
    rows = [line.split(maxsplit=4) for line in lines if re.match(r"\S+  +\S+  +[\d-]+ ", line)]
    return {name: rest for name, *rest in rows}, lines[len(rows) :]


def share(text):
    return float(text.removesuffix("%")) / 100


def formula(gradients):
    """The share of their energy that C(g) = g − mean takes away, over several batches."""
    rows = [g.double().flatten(1) for g in gradients]
    removed = sum(float((g.mean(1) ** 2).sum()) * g.shape[1] for g in rows)
    return removed, sum(float((g**2).sum()) for g in rows)


def test_values_are_those_of_the_formula_and_only_a_picture_is_written(here, capsys):
    config = digits()
    config["dataset"]["train"] |= {"use_shuffle": False, "num_samples": 96}
    flags = ("--batches", 5, "--seed", 3)
    rows, (total, note, picture) = inspected(capsys, config, *flags)
    assert {path.name for path in here.iterdir()} == {"config.json", "inspect.png"}
    assert note.endswith("mean over 3 batches of 32")  # there are no more
    assert picture == "picture: inspect.png"

    torch.manual_seed(3)
    task = build_task(config)
    task.prepare()
    task.advance_phase()
    gradients = {}
    for batch in task.data_iterator:
        task.base_model.zero_grad()
        task.loss(task.model(batch["input"]), batch["target"]).backward()
        for name, p in task.base_model.named_parameters():
            gradients.setdefault(name, []).append(p.grad.clone())
    assert list(rows) == list(gradients)
    removed, energy = 0, 0
    for name, (shape, group, shown, gc) in rows.items():
        first = gradients[name][0]
        assert shape == "×".join(map(str, first.shape))
        assert group == str(
            int(".bn." in name or re.search(r"\.1\.(weight|bias)$", name) is not None)
        )
        if first.ndim == 1:
            assert (shown, gc) == ("-", "no: it has 1 dimension, and rows need at least 2")
            continue
        assert gc == "yes"
        part, whole = formula(gradients[name])
        assert share(shown) == pytest.approx(part / whole, abs=6e-5)
        removed, energy = removed + part, energy + whole
    assert total.startswith("total of 7 of 20 tensors")
    assert share(total.split()[-2]) == pytest.approx(removed / energy, abs=6e-5)

    again, _ = inspected(capsys, config, *flags)
    assert again == rows


@pytest.mark.parametrize(
    ("optimizer", "head", "block"),
    [
        ({"gc_conv_only": True}, "no: gc_conv_only is on and it has 2", "yes"),
        ({"use_gc": False}, "would", "would"),
        ({"name": "adam"}, "would", "would"),
        ({"name": "sgd"}, "would", "would"),
        (
            {
                "name": "adamw_gc",
                "param_groups": {"name": "paramwise", "custom_keys": {"heads": {"use_gc": False}}},
            },
            "would",
            "yes",
        ),
    ],
    ids=["conv_only", "off", "adam", "sgd", "paramwise"],
)
def test_what_gc_touches(here, capsys, optimizer, head, block):
    config = digits(**optimizer)
    if "param_groups" in optimizer:
        config["name"] = "paramwise_classification_task"
    if "gc" not in optimizer.get("name", "gc"):
        del config["optimizer"]["use_gc"]
    if optimizer.get("name") == "adam":
        del config["optimizer"]["param_schedulers"]["momentum"]
    rows, rest = inspected(capsys, config, "--batches", 1)
    assert rows[HEAD][-1].startswith(head)
    assert rows["blocks.0.block0-0.convolutional_block.0.weight"][-1] == block
    assert share(rows[HEAD][-2]) > 0.1
    totals = [line.split()[-1] for line in rest if line.startswith("total")]
    assert totals == [gc for gc in ("yes", "would") if gc in (head, block)]


def test_a_frozen_trunk_and_a_checkpoint(here, capsys):
    config = digits() | {"num_epochs": 1}
    for dataset in config["dataset"].values():
        dataset["num_samples"] = 64
    Path("config.json").write_text(json.dumps(config))
    flags = ["--checkpoint_folder", "trained", "--skip_tensorboard"]
    config["optimizer"]["param_schedulers"]["lr"] = {"name": "constant", "value": 0.1}
    assert main(["train", "--config_file", "config.json", *flags]) == 0
    capsys.readouterr()
    fresh, _ = inspected(capsys, config)
    trained, _ = inspected(capsys, config, "--checkpoint_load_path", "trained")
    assert trained[HEAD][-1] == "yes"
    assert trained != fresh

    tuning = config | {"name": "fine_tuning", "freeze_trunk": True}
    rows, _ = inspected(capsys, tuning, "--pretrained_checkpoint_path", "trained")
    assert [name for name, row in rows.items() if row[-1] == "yes"] == [HEAD]
    assert rows["initial_block._module.0.weight"][1:] == ["-", "-", "no: it is frozen"]


def test_zero_gradients_have_no_share(here, capsys):
    config = json.loads((CONFIGS / "synthetic_resnet50_sgd_gc.json").read_text())
    config |= {"use_gpu": False}
    config["dataset"]["train"] |= {"crop_size": 32, "batchsize_per_replica": 2}
    config["dataset"]["test"] = {"name": "synthetic_image"}  # is not built
    rows, _ = inspected(capsys, config, "--batches", 1, "--output", "resnet50.png")
    assert rows["blocks.1.block1-0.convolutional_block.0.weight"][-2:] == ["-", "yes"]
    assert share(rows["blocks.1.block1-0.downsample.0.weight"][-2]) > 0
    with Image.open("resnet50.png") as image:  # 54 bars
        assert image.size == (1350, round(150 * (1.5 + 0.2 * 54)))


def test_a_sparse_gradient_is_what_gc_refuses(here, capsys):
    Path("test_inspect_words.py").write_text(WORDS)
    config = digits(name="sgd_gc") | {"custom_imports": ["test_inspect_words"]}
    config["model"] = {"name": "test_inspect_words"}
    rows, rest = inspected(capsys, config, "--batches", 1)
    assert rows["words.weight"][-2:] == ["-", "no: its gradient is sparse, which use_gc refuses"]
    assert rows["head.weight"][-1] == "yes"
    assert rest[0].startswith("total of 1 of 3 tensors")


@pytest.mark.parametrize("off", [False, True])
def test_what_is_no_weight_of_a_layer_is_marked(here, capsys, off):
    Path("test_inspect_tokens.py").write_text(TOKENS)
    config = digits(name="sgd_gc") | {"custom_imports": ["test_inspect_tokens"]}
    config["name"] = "paramwise_classification_task"
    config["optimizer"]["param_groups"] = {"name": "paramwise", "gc_layer_weights_only": off}
    config["model"] = {"name": "test_inspect_tokens"}
    rows, rest = inspected(capsys, config, "--batches", 1)
    gc = "would" if off else "yes"
    assert {name: row[-1] for name, row in rows.items()} == {
        "token": f"{gc} (no layer: Tokens)",
        "ln.weight": f"{gc} (normalization: LayerNorm)",
        "ln.bias": f"{gc} (normalization: LayerNorm)",
        "head.weight": "yes",
        "head.bias": "no: it has 1 dimension, and rows need at least 2",
    }
    totals = [line.split()[2] for line in rest if line.startswith("total")]
    assert totals == (["1", "3"] if off else ["4"])


def test_picture(here, capsys):
    inspected(capsys, digits(gc_conv_only=True), "--batches", 1, "--output", "bars.png")
    assert {path.name for path in here.iterdir()} == {"config.json", "bars.png"}
    with Image.open("bars.png") as image:
        assert image.size == (1350, round(150 * (1.5 + 0.2 * 7)))
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colors, counts = np.unique(pixels, axis=0, return_counts=True)
    drawn = {tuple(map(int, c)): int(n) for c, n in zip(colors, counts, strict=True)}
    # A bar of what GC touches, and one of what gc_conv_only leaves alone.
    assert drawn[0, 0x72, 0xB2] > 5000
    assert drawn[0x99, 0x99, 0x99] > 5000


@pytest.mark.parametrize(
    ("flags", "change", "message"),
    [
        (["--batches", "0"], {}, "--batches: must be an integer >= 1, not 0"),
        (["--seed", "-1"], {}, "--seed: must be an integer from 0 to 4294967295, not -1"),
        (["--output", "bars.pdf"], {}, "--output: must be the path of a .png file, not 'bars.pdf'"),
        (["--output", "no/bars.png"], {}, "--output: no/bars.png: there is no writable folder no"),
        (["--checkpoint_load_path", "no"], {}, "--checkpoint_load_path: there is no checkpoint no"),
        ([], {"optimizer": {"name": "sdg"}}, "unknown name 'sdg' in optimizer"),
        ([], {"test_only": True}, "test_only is true, so there are no gradients"),
        ([], {"dataset": {"train": {**DIGITS["dataset"]["train"], "split": 1}}}, "split must be"),
        (
            [],
            {
                "dataset": {
                    "train": {
                        "name": "cifar10",
                        "root": ".",
                        "split": "train",
                        "batchsize_per_replica": 2,
                        "use_shuffle": True,
                    }
                }
            },
            "cifar-10-batches-py lacks data_batch_1, .* https://",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(here, capsys, flags, change, message):
    Path("config.json").write_text(json.dumps(digits() | change))
    with pytest.raises(SystemExit) as exit_:
        main(["inspect", "--config_file", "config.json", *flags])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("classy-gc inspect: error: ")
    assert re.search(message, line), line
    assert [path.name for path in here.iterdir()] == ["config.json"]


def test_a_checkpoint_of_another_model_is_one_line(here, capsys):
    task = build_task(digits())
    task.prepare()
    torch.save(get_checkpoint_dict(task, None), "saved.torch")
    config = digits()
    config["model"]["heads"][0]["num_classes"] = 9
    Path("config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit):
        main(["inspect", "--config_file", "config.json", "--checkpoint_load_path", "saved.torch"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "checkpoint saved.torch does not fit config.json: Error(s) in loading" in line
    assert re.search(r"weight: .*\[10, 32\].* in current model is torch.Size\(\[9, 32\]", line)
