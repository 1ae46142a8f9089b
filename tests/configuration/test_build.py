import contextlib
import copy
import json
import re
from pathlib import Path

import classy_vision
import pytest
import torch
from classy_vision.heads import HEAD_REGISTRY, ClassyHead
from classy_vision.models import MODEL_REGISTRY

from classy_gc.configuration.build import build_task

IMAGES = {
    "name": "synthetic_image",
    **{"crop_size": 8, "class_ratio": 0.5, "seed": 0, "num_samples": 4},
    **{"batchsize_per_replica": 2, "use_shuffle": False, "num_workers": 0, "transforms": []},
}
HEAD = {"name": "fully_connected", "unique_id": "h", "in_plane": 8, "num_classes": 2}
RESNET = {
    "name": "resnet",
    **{"num_blocks": [1], "init_planes": 8, "small_input": True, "basic_layer": True},
    "heads": [HEAD | {"fork_block": "block0-0", "zero_init_bias": True}],
}
VIT = {"image_size": 8, "patch_size": 4, "num_layers": 1, "num_heads": 1, "hidden_dim": 8}
ANYNET = {
    **{"depths": [1], "widths": [8], "group_widths": [8], "bottleneck_multipliers": [1]},
    "strides": [2],
}
EFFICIENTNET = {
    **{"num_classes": 2, "bn_momentum": 0.1, "bn_epsilon": 1e-3, "width_divisor": 8},
    **{"min_width": None, "drop_connect_rate": 0.2, "use_se": True},
}
CLIP = {"input_planes": 3, "clip_crop_size": 8, "frames_per_clip": 2, "num_blocks": [1]}
KINDS = {"skip_transformation_type": "preactivated_shortcut"}
KINDS["residual_transformation_type"] = "preactivated_bottleneck_transformation"
# Classes whose constructor gets the whole section.
CONSTRUCTED = ("resnet18", "efficientnet", "regnet_x_400mf", "vision_transformer")
# Each with all required keys, and an optional one.
MODELS = [
    RESNET,
    {"name": "resnext", "num_blocks": [1], "base_width_and_cardinality": [4, 32], "use_se": True},
    {"name": "resnext3d", **CLIP, **KINDS, "stem_planes": 8},
    {"name": "resnet18", "small_input": True},
    {"name": "densenet", "num_blocks": [1, 1], "growth_rate": 4},
    {"name": "mlp", "input_dim": 4, "hidden_dims": [3], "output_dim": 2, "dropout": 0.5},
    {"name": "efficientnet", "model_name": "B0", **EFFICIENTNET},
    {"name": "anynet", **ANYNET, "stem_width": 8},
    {"name": "regnet", "depth": 2, "w_0": 8, "w_a": 8.0, "w_m": 2.0, "group_width": 8},
    {"name": "regnet_x_400mf", "bn_momentum": 0.2},
    {"name": "vision_transformer", **VIT, "mlp_dim": 8, "dropout_rate": 0.5},
]
CLASSY_CONFIGS = sorted((Path(classy_vision.__file__).parent / "configs").rglob("*.json"))
LABEL_SMOOTHING = {"name": "label_smoothing_cross_entropy", "smoothing_param": 0.1}


def config(**sections):
    base = {"name": "classification_task", "num_epochs": 1, "test_only": True}
    base |= {"dataset": {"test": IMAGES}, "loss": {"name": "CrossEntropyLoss"}, "model": RESNET}
    return copy.deepcopy(base | sections)


@pytest.fixture(autouse=True)
def warnings_alone(caplog):
    caplog.set_level("WARNING")


def test_every_kind_of_model_is_here():
    """All ways to read a section, except efficientnet_b0 to b7, which take any key."""
    classes = [c for c in MODEL_REGISTRY.values() if c.__module__.startswith("classy_vision.")]
    here = {MODEL_REGISTRY[model["name"]].from_config.__func__ for model in MODELS}
    others = {c.__name__[:-2] for c in classes if c.from_config.__func__ not in here}
    assert others == {"EfficientNet"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["name"])
def test_a_key_that_a_model_does_not_read(model, caplog):
    task = build_task(config(model=model))
    assert isinstance(task.base_model, MODEL_REGISTRY[model["name"]])
    assert not caplog.messages
    refused = pytest.raises(TypeError, match="'fly'")
    with refused if model["name"] in CONSTRUCTED else contextlib.nullcontext():
        build_task(config(model=model | {"fly": 1}))
    for message in caplog.messages:
        assert re.match(f"model: '{model['name']}' does not read 'fly'; it reads name, ", message)
        assert all(key in message for key in model)
    assert len(caplog.messages) == (model["name"] not in CONSTRUCTED)


HEADS = [RESNET["heads"][0] | {"num_clases": 3, "fly": 1}]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": RESNET | {"num_block": [2]}}, "model: 'resnet' does not read 'num_block'; "),
        (
            {"model": RESNET | {"heads": HEADS}},
            r"model.heads\[0\]: 'fully_connected' does not read 'num_clases', 'fly'; it reads ",
        ),
        ({"loss": LABEL_SMOOTHING | {"smoothing": 1}}, "loss: .* does not read 'smoothing'; "),
        ({"dataset": {"test": IMAGES | {"num_sample": 2}}}, "dataset.test: .* read 'num_sample'; "),
        ({"dataset": {"test": IMAGES | {"phases_per_epoch": 2}}}, ".* read 'phases_per_epoch'; "),
    ],
)
def test_a_key_that_nobody_reads(sections, message, caplog):
    build_task(config(**sections))
    (told,) = caplog.messages
    assert re.match(message, told)


@pytest.mark.parametrize("path", CLASSY_CONFIGS, ids=lambda path: path.stem)
def test_classy_visions_own_configs(path, caplog):
    """Some have keys that nobody reads; keys that are read cause no warning."""
    given = json.loads(path.read_text()) | {"hooks": []}
    for dataset in given["dataset"].values():  # which are not on this machine
        if not dataset["name"].startswith("synthetic"):
            dataset.clear()
            dataset.update(IMAGES)
    build_task(given)
    unread = {x for message in caplog.messages for x in re.findall(r"'(\w+)'", message)[1:]}
    assert unread <= {"num_classes"}


def test_a_training_config_that_tests_only(caplog):
    datasets = {"train": IMAGES | {"phases_per_epoch": 2}, "test": IMAGES}
    given = config(dataset=datasets, loss=LABEL_SMOOTHING)
    before = copy.deepcopy(given)
    task = build_task(given)
    assert not caplog.messages
    assert given == before
    assert json.loads(json.dumps(task._config)) == before
    assert {type(x) for x in (task._config["model"], *task._config["model"]["heads"])} == {dict}
    assert type(given["model"]) is type(given["dataset"]["train"]) is dict


def test_what_classes_of_others_read_is_theirs(caplog, monkeypatch):
    class Head(ClassyHead):
        def __init__(self, config):
            super().__init__(config["unique_id"])
            self.config = config

        @classmethod
        def from_config(cls, config):
            assert type(config) is dict  # which may go into a checkpoint
            return cls(config)

        def forward(self, x):
            return torch.zeros(len(x), self.config["later"])

    monkeypatch.setitem(HEAD_REGISTRY, "own", Head)
    head = {"name": "own", "unique_id": "h", "fork_block": "block0-0", "later": 2}
    build_task(config(model=RESNET | {"heads": [head]}))
    assert not caplog.messages
