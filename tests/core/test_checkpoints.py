"""States of other weights, of torch's and of centralized classes; distributed checkpoints."""

import copy
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn import Parameter

from classy_gc import core
from classy_gc.core.options import _MOMENTS

from .cases import (
    OPTIMIZERS,
    TORCH_GRID,
    accepts,
    advance,
    assert_close,
    assert_same,
    moments,
    one_row_each,
    parent,
    problem,
    train,
)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("saved", [[(2, 2), (5,)], [(5,), (300, 300)]], ids=["other", "reordered"])
@pytest.mark.parametrize(("cls", "options"), one_row_each())
def test_a_state_of_other_shapes_is_refused(cls, options, saved, fused):
    if not parent(cls).__module__.startswith("torch.optim."):
        pytest.skip("which of its tensors have the shape of their parameter is not known")
    options = {**options, "use_gc": True}
    if accepts(cls, "fused"):
        options["fused"] = fused
    if cls in (core.SGD, core.LARC):
        options["momentum"] = 0.9
    state = train(cls, *problem(saved, steps=1), **options)[1].state_dict()
    weights, grads = problem([(300, 300), (5,)], steps=1)
    for named in (False, True):
        params = [Parameter(w.clone()) for w in weights]
        groups = [
            {"params": [(f"layer{i}.weight", p)] if named else [p]} for i, p in enumerate(params)
        ]
        optimizer = cls(groups, lr=0.1, **options)
        loaded = copy.deepcopy(state)
        (group,) = loaded["param_groups"]
        loaded["param_groups"] = [{**group, "params": [0]}, {**group, "params": [1]}]
        label = "layer0.weight" if named else "parameter 0"
        shapes = rf"{label} has shape \[{', '.join(map(str, saved[0]))}\].*\[300, 300\]"
        with pytest.raises(ValueError, match=shapes):
            optimizer.load_state_dict(loaded)
        assert not optimizer.state
        advance(optimizer, grads)  # and it still steps as before


def test_the_index_in_the_message_counts_on_over_groups():
    params = [Parameter(torch.ones(shape)) for shape in [(4, 3), (2, 2)]]
    optimizer = core.Adam([{"params": [p]} for p in params])
    advance(optimizer, [[torch.ones(4, 3), torch.ones(2, 2)]])
    state = optimizer.state_dict()
    state["state"][1]["exp_avg_sq"] = torch.ones(2, 3)
    with pytest.raises(ValueError, match="exp_avg_sq of parameter 1 has"):
        optimizer.load_state_dict(state)


def test_the_names_of_moments_are_all_of_torchs():
    names = set()
    for name in set(torch.optim.__all__) - {"Adafactor", "LBFGS", "Optimizer", "SparseAdam"}:
        cls = getattr(torch.optim, name, None)
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer):
            p = Parameter(torch.ones(4, 3))
            options = {x: True for x in ("amsgrad", "centered") if accepts(cls, x)}
            options |= {"momentum": 0.9} if accepts(cls, "momentum") else {}
            optimizer = cls([p], **options)
            advance(optimizer, [[torch.ones(4, 3)]])
            names |= {k for k, x in optimizer.state[p].items() if x.shape == p.shape}
    assert names == _MOMENTS


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_the_state_counts_and_one_warning_says_so(cls):
    weights, grads = problem(steps=2)
    for was, becomes in [(False, True), (True, False)]:
        state = train(cls, weights, grads, use_gc=was)[1].state_dict()
        optimizer = cls([{"params": [Parameter(w)]} for w in weights], use_gc=becomes)
        group = state["param_groups"][0]
        state["param_groups"] = [{**group, "params": [i]} for i in range(len(weights))]
        with pytest.warns(UserWarning, match="as in torch it counts") as caught:
            optimizer.load_state_dict(state)
        (warning,) = caught
        assert f"use_gc={was} (was {becomes})" in str(warning.message)
        assert warning.filename == __file__
        assert optimizer.param_groups[-1]["use_gc"] is was


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_nothing_is_said_where_nothing_changes(cls):
    weights, grads = problem(steps=2)
    _, theirs = train(parent(cls), weights, grads)
    _, ours = train(cls, weights, grads, use_gc=True)
    for state in (theirs.state_dict(), ours.state_dict()):
        optimizer = cls([Parameter(w) for w in weights], use_gc=1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            optimizer.load_state_dict(state)
        assert optimizer.param_groups[0]["use_gc"]


@pytest.mark.parametrize("cls", TORCH_GRID)
def test_a_state_of_a_centralized_torch_optimizer(cls):
    weights, grads = problem(steps=8)
    options = {"momentum": 0.9} if accepts(cls, "momentum") else {}
    params = [Parameter(w.clone()) for w in weights]
    # Where GC acts is an option that comes with the state; in SGD it is always the gradient.
    theirs = core.centralize_optimizer(
        parent(cls)(params, lr=0.1, **options), gc_loc=cls in (core.SGD, core.AdamW)
    )
    advance(theirs, grads[:4])
    own = [Parameter(p.detach().clone()) for p in params]
    ours = cls(own, use_gc=True)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    known = {"params", *cls([Parameter(torch.ones(1))]).param_groups[0]}
    assert set(ours.param_groups[0]) == known
    for optimizer in (theirs, ours):
        advance(optimizer, grads[4:])
    assert_close(own, [p.detach() for p in params], 1e-5)

    back = core.centralize_optimizer(parent(cls)(own))
    back.load_state_dict(copy.deepcopy(ours.state_dict()))
    advance(back, grads[:1])


# Distributed checkpoints.


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))


def steps(module, optimizer, seed):
    shapes = [p.shape for p in module.parameters()]
    generator = torch.Generator().manual_seed(seed)
    advance(optimizer, [[torch.randn(x, generator=generator) for x in shapes] for _ in range(3)])
    optimizer.zero_grad()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("of", ["torch", "GC"])
@pytest.mark.parametrize("cls", [c for c in TORCH_GRID if c is not core.PlainRAdam])
def test_distributed_checkpoints(cls, of, flatten, through_a_file, tmp_path):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    momentum = {"momentum": 0.9} if accepts(cls, "momentum") else {}
    before = model()
    made = parent(cls) if of == "torch" else cls
    added = {} if of == "torch" else {"use_gc": True, "gc_conv_only": True}
    saved = made(before.parameters(), lr=0.05, **momentum, **added)
    steps(before, saved, 1)
    state = get_optimizer_state_dict(before, saved, options=options)

    after = copy.deepcopy(before)
    optimizer = cls(after.parameters(), lr=9.0, use_gc=True, **momentum)
    own = get_optimizer_state_dict(after, optimizer, options=options)
    if through_a_file:
        dcp.save({"optimizer": state}, checkpoint_id=tmp_path, no_dist=True)
        planner = dcp.DefaultLoadPlanner(allow_partial_load=of == "torch")
        dcp.load({"optimizer": own}, checkpoint_id=tmp_path, no_dist=True, planner=planner)
        state = own
    elif flatten:
        state = {**own, **state}
    set_optimizer_state_dict(after, optimizer, state, options=options)

    assert_same(moments(optimizer), moments(saved))
    group = optimizer.param_groups[0]
    assert (group["lr"], group["use_gc"]) == (0.05, True)
    assert group["gc_conv_only"] is (of == "GC")
    wanted = cls(before.parameters(), lr=0.05, use_gc=True, **momentum)
    state = {**saved.state_dict(), "param_groups": optimizer.state_dict()["param_groups"]}
    wanted.load_state_dict(copy.deepcopy(state))
    for pair in ((before, wanted), (after, optimizer)):
        steps(*pair, seed=2)
    assert_same(list(after.parameters()), list(before.parameters()))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_an_optimizer_is_stateful_for_dcp(tmp_path):
    before, after = model(), model()
    saved = core.Adam(before.parameters(), use_gc=True)
    steps(before, saved, 1)
    dcp.save({"optimizer": saved}, checkpoint_id=tmp_path, no_dist=True)
    optimizer = core.Adam(after.parameters(), lr=9.0, use_gc=True)
    steps(after, optimizer, 2)  # dcp loads what the target has
    dcp.load({"optimizer": optimizer}, checkpoint_id=tmp_path, no_dist=True)
    assert_same(moments(optimizer), moments(saved))
    assert optimizer.param_groups[0]["lr"] == 1e-3
