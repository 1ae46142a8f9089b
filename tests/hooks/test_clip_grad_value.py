import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from classy_vision.hooks import ClassyHook, build_hook
from classy_vision.optim import build_optimizer
from classy_vision.tasks import ClassificationTask, build_task
from classy_vision.trainer import LocalTrainer
from torch.nn import Flatten, Linear, ReLU, Sequential

from tests.commands.training import digits

VALUE = 0.01
STEPS = 4
OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.5, "momentum": 0.9},
    "adam": {"name": "adam", "lr": 0.01},
    "sgd_gc": {"name": "sgd_gc", "lr": 0.5, "momentum": 0.9, "use_gc": True},
    "sgd_gc fused": {"name": "sgd_gc", "lr": 0.5, "momentum": 0.9, "use_gc": True, "fused": True},
    "adam_gc before": {"name": "adam_gc", "lr": 0.01, "use_gc": True, "gc_loc": True},
    "gc": {"name": "gc", "base_optimizer": {"name": "sgd", "lr": 0.5}, "use_gc": True},
    "torch_gc": {"name": "torch_gc", "optimizer": "NAdam", "lr": 0.01, "use_gc": True},
}
every_optimizer = pytest.mark.parametrize("config", OPTIMIZERS.values(), ids=OPTIMIZERS)


def hook(value=VALUE):
    return build_hook({"name": "clip_grad_value", "value": value})


def weights_after(config, clips=(), by_hand=None, scaler=None, raw=False):
    """Trains a small network, with hooks or with ``by_hand`` called before each step."""
    torch.manual_seed(0)
    model = Sequential(Flatten(), Linear(12, 8), ReLU(), Linear(8, 3))
    optimizer = build_optimizer(copy.deepcopy(config))
    optimizer.set_param_groups(list(model.parameters()))
    task = ClassificationTask().set_optimizer(optimizer)
    for clip in clips:
        clip.on_start(task)
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    inputs, targets = torch.randn(16, 12) + 0.5, torch.randint(3, (16,))
    for i in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if by_hand:
            by_hand(model.parameters())
        if raw:  # as in a loop without Classy Vision's optimizers
            scaler.step(optimizer.optimizer)
        else:
            scaler.step(optimizer, where=i / STEPS)
        scaler.update()
    for clip in clips:
        clip.on_end(task)
    return [p.detach() for p in model.parameters()]


def same(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


def clip_by_hand(params):
    torch.nn.utils.clip_grad_value_(params, VALUE)


@every_optimizer
def test_clips_before_gc_as_torch_does_before_the_step(config):
    clipped = weights_after(config, [hook()])
    same(clipped, weights_after(config, by_hand=clip_by_hand))
    assert (clipped[0] - weights_after(config)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("raw", [True, False])
@every_optimizer
def test_does_not_see_the_scale_of_mixed_precision(config, raw):
    scaler = torch.amp.GradScaler("cpu")
    clipped = weights_after(config, [hook()], scaler=scaler, raw=raw)
    assert scaler.get_scale() == 2.0**16  # a power of two: scaling is exact
    same(clipped, weights_after(config, by_hand=clip_by_hand))


def test_inside_zero(tmp_path):
    pytest.importorskip("fairscale")
    base = OPTIMIZERS["adam_gc before"]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        clipped = weights_after({"name": "zero", "base_optimizer": base}, [hook()])
    finally:
        dist.destroy_process_group()
    same(clipped, weights_after(base, by_hand=clip_by_hand))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_the_hook_and_of_its_optimizer(copied):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(OPTIMIZERS["sgd_gc"])
    optimizer.set_param_groups([weight])
    clip = hook()
    clip.on_start(ClassificationTask().set_optimizer(optimizer))
    assert copied(clip).value == VALUE
    assert copied(optimizer.optimizer).state_dict() == optimizer.optimizer.state_dict()
    weight.grad = torch.full((2,), 3.0)
    optimizer.step(where=0)
    assert weight.tolist() == pytest.approx([1 - 0.5 * VALUE] * 2)


class Recorder(ClassyHook):
    """The largest element and the norm of the gradients at every step, as the optimizer sees them.

    Listed after ``clip_grad_value``.
    """

    on_phase_start = on_step = on_phase_end = on_end = ClassyHook._noop

    def __init__(self):
        super().__init__()
        self.largest, self.norms = [], []

    def on_start(self, task):
        task.optimizer.optimizer.register_step_pre_hook(self.record)

    def record(self, optimizer, args, kwargs):
        grads = torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"]])
        self.largest.append(grads.abs().max().item())
        self.norms.append(grads.norm().item())


def trained(hooks, **changes):
    """A training through Classy Vision, of eight batches."""
    torch.manual_seed(0)
    recorder = Recorder()
    task = build_task(digits(1, 256, **changes)).set_hooks([*hooks, recorder])
    LocalTrainer().train(task)
    return recorder


def test_with_clipping_by_norm_the_norm_comes_first():
    by_norm = trained([], clip_grad_norm=0.1)
    assert by_norm.norms == pytest.approx([0.1] * 8, rel=1e-4)
    both = trained([hook()], clip_grad_norm=0.1)
    # Clipped by value first, the norm would still be 0.1, and no element would be VALUE.
    assert both.largest == pytest.approx([VALUE] * 8)
    assert max(both.norms) < 0.0999
    assert max(trained([]).largest) > VALUE


def test_accumulated_gradients_are_clipped_once():
    together = trained([hook()], simulated_global_batchsize=64)
    assert together.largest == pytest.approx([VALUE] * 4)


def test_a_task_that_only_tests():
    task = build_task(digits(test_only=True)).set_hooks([hook()])
    LocalTrainer().train(task)
    assert task.losses
