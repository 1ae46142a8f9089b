"""torch.compile around a step: the numbers of the step itself, and no graph break of our own."""

from functools import cache

import pytest
import torch
from torch._dynamo.utils import counters

from classy_gc import core

from .cases import OF_TORCH, accepts, assert_same, moments, parent, row_id

# Which code is compiled depends on the switches; GC itself always runs uncompiled.
SWITCHES = [{"use_gc": False}, {"use_gc": True}]
MORE = [
    {"use_gc": False, "foreach": True},
    {"use_gc": False, "fused": True},
    {"use_gc": True, "gc_loc": True, "fused": False},
]
#: one of each step: torch's own with and without torch's fused kernels, and with ours
STEPS = (core.SGD, core.Adam, core.RAdam, core.RMSpropTF)
CASES = [
    pytest.param(p.values[0], options, id=row_id((p.values[0], options)))
    for p in OF_TORCH
    for options in SWITCHES + (MORE if p.values[0] in STEPS else [])
    if accepts(p.values[0], *options)
]


def method(model, optimizer):
    return optimizer.step


def function(model, optimizer):
    return lambda: optimizer.step()


def training(model, optimizer):
    def step():
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 20).view(5, 4)).pow(2).sum().backward()
        optimizer.step()

    return step


def run(cls, options, what, backend=None):
    """Weights and state after the steps, the number of graph breaks and the number of graphs."""
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = cls(model.parameters(), lr=0.1, weight_decay=0.3, **options)
    step = what(model, optimizer)
    if backend is not None:
        step = torch.compile(step, backend=backend)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        if what is not training:
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
        step()
    breaks, graphs = sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"]
    return [*model.parameters(), *moments(optimizer)], breaks, graphs


@cache
def torchs(cls, options, what, backend):
    return run(cls, dict(options), what, backend)


def check(cls, options, what, backend="eager"):
    known = {k: v for k, v in options.items() if accepts(parent(cls), k)}
    theirs, allowed, graphs = torchs(parent(cls), tuple(known.items()), what, backend)
    compiled, breaks, own_graphs = run(cls, options, what, backend)
    assert breaks <= allowed
    if known.get("fused") or options["use_gc"] or cls in (core.LARC, core.RMSpropTF):
        wanted, _, _ = run(cls, options, what)
        torch.testing.assert_close(compiled, wanted)
        if options["use_gc"] and what is not training:  # dynamo is kept out of it
            assert_same(compiled, wanted)
    elif not options.get("fused"):
        assert_same(compiled, theirs)
        assert own_graphs >= graphs  # and what torch compiles is compiled


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_a_compiled_step(cls, options):
    check(cls, options, method)


@pytest.mark.parametrize(
    ("cls", "use_gc", "what"),
    [
        *((cls, True, training) for cls in STEPS),
        *((cls, False, training) for cls in (core.SGD, core.RAdam, core.RMSpropTF)),
        *((cls, use_gc, function) for cls in (core.SGD, core.RAdam) for use_gc in (False, True)),
    ],
)
def test_a_compiled_function_that_steps(cls, use_gc, what):
    check(cls, {"use_gc": use_gc}, what)


@pytest.mark.parametrize(
    ("cls", "what", "use_gc"),
    [(core.SGD, method, False), (core.RMSpropTF, method, False), (core.Adam, training, True)],
)
def test_inductor(cls, what, use_gc):
    # The compiler takes 12 s to find out which vector units it knows.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": False}):
        check(cls, {"use_gc": use_gc}, what, "inductor")


def test_radam_that_waits_is_not_compiled_anew_for_each_step():
    options = {"degenerated_to_sgd": False}
    compiled, breaks, graphs = run(core.RAdam, options, method, "eager")
    torch.testing.assert_close(compiled, run(core.RAdam, options, method)[0])
    assert breaks <= run(torch.optim.RAdam, {}, method, "eager")[1]
    assert graphs == 0


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_centralized_optimizer_of_another_class(scheduled):
    def nadam(params, **options):
        optimizer = torch.optim.NAdam(params, **options)
        if scheduled:
            torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return optimizer

    def centralized(params, **options):
        return core.centralize_optimizer(nadam(params, **options))

    compiled, breaks, _ = run(centralized, {}, method, "eager")
    assert_same(compiled, run(centralized, {}, method)[0])
    assert breaks <= run(nadam, {}, method, "eager")[1]


def test_a_closure_is_compiled():
    p = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = core.Adam([p], use_gc=True)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def closure():
        optimizer.zero_grad()
        loss = (p * torch.arange(3)).sum()
        loss.backward()
        return loss

    assert torch.compile(lambda: optimizer.step(closure), backend=backend)().item() == 12
    assert graphs
