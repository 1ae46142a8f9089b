import copy
import json
import math

import pytest
import torch
from classy_vision.dataset import ClassyDataset
from classy_vision.hooks import ClassyHook, TensorboardPlotHook, build_hook
from classy_vision.models import ClassyModel, build_model
from classy_vision.optim import build_optimizer
from classy_vision.tasks import ClassificationTask
from classy_vision.trainer import LocalTrainer
from torch import nn

import classy_gc  # noqa: F401

VIT = {
    "name": "vision_transformer",
    "image_size": 8,
    "patch_size": 4,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "mlp_dim": 8,
    "heads": [
        {
            "name": "vision_transformer_head",
            "fork_block": "trunk_output",
            "unique_id": "default_head",
            "num_classes": 3,
            "in_plane": 8,
        }
    ],
}


class Words(ClassyModel):
    """An embedding, a GRU and an attention, read by a linear layer; ``depthwise`` has no rows."""

    def __init__(self, sparse=False):
        super().__init__()
        self.embedding = nn.Embedding(11, 6, sparse=sparse)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.attention = nn.MultiheadAttention(5, 1, batch_first=True)
        self.head = nn.Linear(5, 3)
        self.depthwise = nn.Conv1d(3, 3, 1, groups=3)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x):
        h, _ = self.gru(self.embedding(x))
        h, _ = self.attention(h, h, h)
        return self.depthwise(self.head(h.mean(1))[..., None])[..., 0]


WITH_ROWS = {
    "embedding.weight",
    "gru.weight_ih_l0",
    "gru.weight_hh_l0",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "head.weight",
    "unused.weight",
}


class Recorder(ClassyHook):
    """The gradients before each step; the weights before the first step and after each."""

    on_phase_start = on_phase_end = on_end = ClassyHook._noop

    def on_start(self, task):
        self.gradients, self.weights = [], [self.copies(task)]
        task.optimizer.optimizer.register_step_pre_hook(
            lambda *_: self.gradients.append(self.copies(task, "grad"))
        )

    def on_step(self, task):
        if task.train:
            self.weights.append(self.copies(task))

    def copies(self, task, attribute="data"):
        values = {n: getattr(p, attribute) for n, p in task.base_model.named_parameters()}
        return {n: v.to_dense().double() for n, v in values.items() if v is not None}


def samples(images):
    generator = torch.Generator().manual_seed(3)
    shape = (16, 3, 8, 8) if images else (16, 7)
    x = torch.rand(shape, generator=generator) if images else None
    x = x if images else torch.randint(0, 11, shape, generator=generator)
    return [{"input": x[i], "target": i % 3} for i in range(16)]


def task_of(hooks, model=None, epochs=2, images=False, accumulate=None, **optimizer):
    torch.manual_seed(0)
    optimizer = {"name": "sgd_gc", "lr": 0.2} | optimizer
    if "base_optimizer" in optimizer:
        del optimizer["lr"]
    model = model or (build_model(VIT) if images else Words())
    dataset = ClassyDataset(samples(images), 4, False, None, None)
    dataset.set_num_workers(0)
    task = ClassificationTask().set_num_epochs(epochs).set_loss(nn.CrossEntropyLoss())
    task.set_model(model).set_use_gpu(False).set_hooks(hooks)
    task.set_optimizer(build_optimizer(optimizer))
    for phase in ("train", "test"):
        task.set_dataset(dataset, phase)
    if accumulate:
        task.set_simulated_global_batchsize(accumulate)
    return task


def trained(folder, interval=1, **options):
    """Trains; returns the lines of gc_monitor, a recorder, and the task."""
    recorder = Recorder()
    hooks = [
        recorder,
        build_hook({"name": "json_log", "folder": str(folder)}),
        build_hook({"name": "gc_monitor", "interval": interval}),
    ]
    task = task_of(hooks, **options)
    LocalTrainer().train(task)
    return lines(folder), recorder, task


def lines(folder):
    log = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in log if line["kind"] == "gc_monitor"]


def rows_and_norm(x):
    """``‖x − C(x)‖²`` and ``‖x‖²``, by the formula."""
    mean = x.flatten(1).mean(1, keepdim=True).expand_as(x.flatten(1))
    return float((mean**2).sum()), float((x**2).sum())


GC = {
    "on": {"use_gc": True, "momentum": 0.9, "weight_decay": 0.1},
    "off": {"use_gc": False, "momentum": 0.9},
    "before the moments": {"name": "adam_gc", "use_gc": True, "gc_loc": True, "lr": 0.01},
    "stock": {"name": "adam", "lr": 0.01},
    "around": {"name": "gc", "use_gc": True, "base_optimizer": {"name": "rmsprop", "lr": 0.01}},
}


@pytest.mark.parametrize("images", [False, True], ids=["words", "vision_transformer"])
@pytest.mark.parametrize("gc", GC)
def test_shares_and_drifts_are_those_of_the_formulas(tmp_path, gc, images):
    seen, recorder, _ = trained(tmp_path, interval=3, images=images, **GC[gc])
    assert [line["step"] for line in seen] == [1, 4, 7]
    assert [line["epoch"] for line in seen] == [0.25, 1.0, 1.75]
    for line in seen:
        step = line["step"]
        gradients, weights = recorder.gradients[step - 1], recorder.weights[step]
        removed, drifted = {}, {}
        for name, values in line["parameters"].items():
            drifted[name] = (
                rows_and_norm(weights[name] - recorder.weights[0][name])[0],
                rows_and_norm(weights[name])[1],
            )
            moved, norm = drifted[name]
            if norm:
                assert values["drift"] == pytest.approx(math.sqrt(moved / norm), rel=1e-3, abs=1e-6)
            else:  # a class token that has not moved yet
                assert values["drift"] is None
            if name in gradients and gradients[name].any():
                removed[name] = rows_and_norm(gradients[name])
                share = removed[name][0] / removed[name][1]
                assert values["removed"] == pytest.approx(share, rel=1e-3, abs=1e-6)
                assert 0 <= values["removed"] <= 1
            else:
                assert values["removed"] is None
        for key, parts, power in (("removed", removed, 1), ("drift", drifted, 0.5)):
            part, whole = (sum(pair[i] for pair in parts.values()) for i in (0, 1))
            assert line[key] == pytest.approx((part / whole) ** power, rel=1e-3, abs=1e-6)
        if not images:
            assert set(line["parameters"]) == WITH_ROWS
            assert line["parameters"]["unused.weight"] == {"removed": None, "drift": 0}
    # Shown is the gradient before GC. A new transformer's is centralized by its norm layers.
    assert min(line["removed"] for line in seen[1:]) > 5e-4
    last = seen[-1]["drift"]
    assert last < 1e-6 if gc in ("on", "around") else last > 1e-3


@pytest.mark.parametrize("use_gc", [False, True])
def test_weights_are_bit_identical_without_it(tmp_path, use_gc):
    options = {"use_gc": use_gc, "momentum": 0.9, "weight_decay": 0.1}
    plain = task_of([], **options)
    LocalTrainer().train(plain)
    _, _, watched = trained(tmp_path, **options)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_accumulated_gradients_are_looked_at_once_a_step(tmp_path):
    seen, recorder, _ = trained(tmp_path, accumulate=8)
    assert [line["step"] for line in seen] == [1, 2, 3, 4]
    assert [line["epoch"] for line in seen] == [0.5, 1.0, 1.5, 2.0]
    removed, norm = rows_and_norm(recorder.gradients[-1]["head.weight"])
    share = seen[-1]["parameters"]["head.weight"]["removed"]
    assert share == pytest.approx(removed / norm, rel=1e-3)


def test_between_looks_nothing_is_computed(monkeypatch, tmp_path):
    looks = []
    for module in ("core.measures", "hooks.gc_monitor"):
        monkeypatch.setattr(
            f"classy_gc.{module}.row_mean_norms", lambda *args: looks.append(1) or torch.ones(2)
        )
    seen, _, _ = trained(tmp_path, interval=5)
    assert [line["step"] for line in seen] == [1, 6]
    # 7 weights and 6 gradients, since one weight is unused.
    assert len(looks) == 2 * 13


def test_a_resumed_run_writes_what_the_uninterrupted_one_does(tmp_path):
    """The state goes through a file, as in a checkpoint."""
    whole, _, _ = trained(tmp_path / "whole", interval=3, epochs=3)

    class Save(ClassyHook):
        on_start = on_phase_start = on_step = on_end = ClassyHook._noop

        def on_phase_end(self, task):
            if task.train and task.train_phase_idx == 0:
                state = {"classy_state_dict": task.get_classy_state()}
                torch.save(state, tmp_path / "checkpoint.torch")

    hooks = [Save(), build_hook({"name": "gc_monitor", "interval": 3})]
    LocalTrainer().train(task_of(hooks, epochs=3))
    hooks = [
        build_hook({"name": "json_log", "folder": str(tmp_path / "resumed")}),
        build_hook({"name": "gc_monitor", "interval": 3}),
    ]
    task = task_of(hooks, epochs=3)
    task.set_checkpoint(str(tmp_path / "checkpoint.torch"))
    LocalTrainer().train(task)
    resumed = lines(tmp_path / "resumed")
    assert [line["step"] for line in resumed] == [7, 10]
    assert resumed == whole[2:]
    assert resumed[-1]["drift"] > 1e-3  # drift since the start, not since the checkpoint


def test_the_hook_can_be_copied_after_a_training(tmp_path):
    task = task_of([build_hook({"name": "gc_monitor", "interval": 2})])
    LocalTrainer().train(task)
    assert copy.deepcopy(task.hooks[-1]).state.step == 8


def test_a_task_that_only_tests_has_no_steps():
    hook = build_hook({"name": "gc_monitor"})
    task = task_of([hook]).set_test_only(True)
    task.optimizer = None  # as from a config
    LocalTrainer().train(task)
    assert task.losses
    assert hook.state.step == 0


def test_gradients_that_have_no_share_are_null(tmp_path):
    class Spoil(ClassyHook):
        on_phase_start = on_step = on_phase_end = on_end = ClassyHook._noop

        def on_start(self, task):
            def spoil(*_):
                model = task.base_model
                model.head.weight.grad.fill_(float("inf"))
                model.gru.weight_hh_l0.grad.zero_()

            task.optimizer.optimizer.register_step_pre_hook(spoil)

    hooks = [
        Spoil(),
        build_hook({"name": "json_log", "folder": str(tmp_path)}),
        build_hook({"name": "gc_monitor"}),
    ]
    model = Words(sparse=True)
    task = task_of(hooks, model=model, fused=False)
    task.prepare()
    task.on_start()
    task.on_phase_start()
    task.step()
    (line,) = lines(tmp_path)
    null = {name for name, values in line["parameters"].items() if values["removed"] is None}
    assert null == {"embedding.weight", "gru.weight_hh_l0", "head.weight", "unused.weight"}
    assert line["removed"] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(dtype):
    from classy_gc.core.measures import ratios, row_mean_norms

    torch.manual_seed(0)
    x = (torch.randn(20, 3000) * 300 + 3).to(dtype)  # half precision overflows in the square
    part, whole = rows_and_norm(x.double())
    each, total = ratios({"x": row_mean_norms(x)})
    assert total == each["x"] == pytest.approx(math.sqrt(part / whole), rel=1e-4)


def test_scaled_gradients_of_a_fused_optimizer(tmp_path):
    """GradScaler leaves gradients scaled, and overflown ones too; no ratio depends on it."""
    task = task_of(
        [
            build_hook({"name": "json_log", "folder": str(tmp_path)}),
            hook := build_hook({"name": "gc_monitor", "interval": 1}),
        ],
        use_gc=True,
        fused=True,
    )
    task.prepare()
    task.on_start()
    task.on_phase_start()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    batch = next(task.data_iterator)
    shares = []
    for scaled in (False, True):
        task.base_model.zero_grad()
        loss = task.loss(task.model(batch["input"]), batch["target"])
        (scaler.scale(loss) if scaled else loss).backward()
        inner = task.optimizer.optimizer
        before = copy.deepcopy(task.base_model.state_dict())
        scaler.step(inner) if scaled else inner.step()
        task.base_model.load_state_dict(before)
        hook.on_step(task)
        shares.append(lines(tmp_path)[-1]["removed"])
    assert shares[0] == pytest.approx(shares[1], rel=1e-5)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    hooks = [
        TensorboardPlotHook(SummaryWriter(str(tmp_path))),
        build_hook({"name": "json_log", "folder": str(tmp_path)}),
        build_hook({"name": "gc_monitor", "interval": 4}),
    ]
    LocalTrainer().train(task_of(hooks))
    hooks[0].tb_writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for tag, key in (("GC Removed", "removed"), ("GC Drift", "drift")):
        shown = [(e.step, e.value) for e in events.Scalars(f"{tag}/total")]
        assert shown == [(s["step"], pytest.approx(s[key])) for s in lines(tmp_path)]
        shown = [e.value for e in events.Scalars(f"{tag}/head.weight")]
        expected = [s["parameters"]["head.weight"][key] for s in lines(tmp_path)]
        assert shown == pytest.approx(expected)
    assert "GC Removed/unused.weight" not in events.Tags()["scalars"]
