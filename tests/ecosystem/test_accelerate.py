import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from classy_gc.core import AdamW

from .digits import EPOCHS, assert_same_weights, loader, loss, network, row_means, train

CLIP = 0.5


def fit(folder, options, resume=False):
    """Trains two epochs, or the second one of them."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.01, use_gc=True, **options)
    prepared, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    if resume:
        accelerator.load_state(folder)
    for epoch in range(resume, EPOCHS):
        for batch in batches:
            accelerator.backward(loss(prepared, *batch))
            accelerator.clip_grad_norm_(prepared.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
        if epoch == 0:
            accelerator.save_state(folder)
    return accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)


@pytest.fixture
def _own_state():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_own_state")
@pytest.mark.parametrize(
    "options", [{}, {"fused": True}, {"gc_loc": False}], ids=["", "fused", "GC on the update"]
)
def test_weights_and_resume_are_those_of_the_loop_in_torch(tmp_path, options):
    trained = fit(tmp_path / "state", options)
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.01, use_gc=True, **options)
    train(model, optimizer, clip=CLIP, dtype=torch.bfloat16)
    assert_same_weights(trained, model)
    assert_same_weights(fit(tmp_path / "state", options, resume=True), model)
    moved = (row_means(trained[0].weight) - row_means(network()[0].weight)).abs().max()
    assert (moved < 1e-6) == ("gc_loc" in options)
