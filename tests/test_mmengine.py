"""The optimizers in MMEngine's own Runner, beside the same loop in torch."""

import functools
import itertools

import pytest
import torch
from ecosystem.digits import EPOCHS, assert_same_weights, dataset, loss, network, row_means, train
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import DATASETS, MODELS, OPTIMIZERS
from mmengine.runner import Runner

from classy_gc import core

NAMES = [name for name in core.__all__ if name[0].isupper() and name != "CentralizedOptimizer"]
CONFIG = """
custom_imports = dict(imports=["classy_gc.mmengine"])
work_dir = {work_dir!r}
experiment_name = {name!r}
model = dict(type="TestDigitsNetwork")
train_dataloader = dict(
    batch_size=64,
    dataset=dict(type="TestDigits"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
)
train_cfg = dict(by_epoch=True, max_epochs={epochs})
optim_wrapper = {optim_wrapper!r}
param_scheduler = {param_scheduler!r}
resume = {resume!r}
log_level = "ERROR"
"""


@MODELS.register_module()
class TestDigitsNetwork(BaseModel):
    __test__ = False

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, images, targets, mode):
        return {"loss": loss(self.network, images, targets)}


DATASETS.register_module("TestDigits", module=dataset)


@pytest.fixture
def run(tmp_path, request):
    """Trains from a config file, and returns the Runner."""
    number = itertools.count()

    def run(folder="work", epochs=EPOCHS, resume=False, param_scheduler=(), **optim_wrapper):
        # MMEngine keeps global objects by the name of the experiment.
        name = f"{request.node.name}-{next(number)}"
        file = tmp_path / "config.py"
        file.write_text(
            CONFIG.format(
                work_dir=str(tmp_path / folder),
                name=name,
                epochs=epochs,
                optim_wrapper=optim_wrapper,
                param_scheduler=list(param_scheduler),
                resume=resume,
            )
        )
        runner = Runner.from_cfg(Config.fromfile(file))
        runner.train()
        return runner

    return run


@pytest.mark.parametrize("name", NAMES)
def test_config(run, name):
    options = {"lr": 0.01, "weight_decay": 0.1, "use_gc": True}
    runner = run(optimizer={"type": f"{name}GC", **options})
    model = network()
    train(model, getattr(core, name)(model.parameters(), **options))
    assert_same_weights(runner.model.network, model)


def test_torchs_own_names_stay_torchs():
    for name in ("SGD", "Adam", "AdamW", "RAdam", "RMSprop"):
        assert OPTIMIZERS.get(name) is getattr(torch.optim, name)
        assert OPTIMIZERS.get(f"{name}GC") is getattr(core, name)


def on_the_cpu(monkeypatch):
    """MMEngine refuses AmpOptimWrapper without a GPU; nothing else of it needs one."""
    scaler = functools.partial(torch.amp.GradScaler, "cpu")
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", scaler)


OPTIMIZER_OPTIONS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1, "gc_loc": False},
    "RAdam": {"lr": 0.1, "weight_decay": 0.1},
    "RMSprop": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
}
WRAPPERS = {
    "OptimWrapper": ({}, {}, 0.5),
    "AmpOptimWrapper": ({"dtype": "bfloat16"}, {"dtype": torch.bfloat16}, None),
    "AmpOptimWrapper, loss_scale": (
        {"dtype": "bfloat16", "loss_scale": 128.0},
        {"dtype": torch.bfloat16},
        0.5,
    ),
}


@pytest.mark.filterwarnings("ignore:Detected call of `scheduler.step")  # while it accumulates
@pytest.mark.parametrize(("wrapper", "loop", "clip"), WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("name", OPTIMIZER_OPTIONS)
def test_all_that_an_optim_wrapper_does(run, monkeypatch, name, wrapper, loop, clip):
    """Parameter-wise options, accumulation, clipping, mixed precision, a schedule of momentum."""
    options = {"use_gc": True, **OPTIMIZER_OPTIONS[name]}
    if wrapper:
        on_the_cpu(monkeypatch)
        wrapper = {"type": "AmpOptimWrapper", **wrapper}
    runner = run(
        optimizer={"type": f"{name}GC", **options},
        paramwise_cfg={
            "norm_decay_mult": 0.0,
            "bias_lr_mult": 2.0,
            "custom_keys": {"network.4": {"lr_mult": 0.5, "use_gc": False}},
        },
        accumulative_counts=3,  # of ten batches, so that one is left over
        param_scheduler=[
            {"type": "LinearMomentum", "start_factor": 0.5, "end": 8, "by_epoch": False}
        ],
        **wrapper,
        **({"clip_grad": {"max_norm": clip}} if clip else {}),
    )

    model = network()
    lr, head = options["lr"], {"lr": options["lr"] / 2, "use_gc": False}
    own = [{}, {"lr": 2 * lr}, {"weight_decay": 0}, {"weight_decay": 0}, head, head]
    groups = [{"params": [p], **o} for p, o in zip(model.parameters(), own, strict=True)]
    optimizer = getattr(core, name)(groups, **options)

    def schedule_momentum(seen):
        for group in optimizer.param_groups:
            momentum = 0.9 * (0.5 + 0.5 * min(seen / 7, 1))
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    train(model, optimizer, clip=clip, accumulate=3, before_step=schedule_momentum, **loop)
    torch.testing.assert_close(runner.model.network.state_dict(), model.state_dict())
    before = network()
    centralized, head = ((model[i].weight, before[i].weight) for i in (0, 4))
    torch.testing.assert_close(*map(row_means, centralized))
    assert (row_means(head[0]) - row_means(head[1])).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
def test_resume(run, monkeypatch):
    # MMEngine's checkpoints hold objects of its own, which torch 2.6 refuses unless told.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    optimizer = {"type": "AdamWGC", "lr": 0.01, "use_gc": True}
    whole = run("whole", optimizer=optimizer).model
    run(epochs=1, optimizer=optimizer)
    resumed = run(optimizer=optimizer, resume=True)
    assert resumed.iter == 10
    assert_same_weights(resumed.model, whole)
