import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import StepLR

from classy_gc.core import AdamW

from .digits import EPOCHS, assert_same_weights, loader, loss, network, row_means, train

CLIP = 0.5


class Digits(lightning.LightningModule):
    def __init__(self, options):
        super().__init__()
        self.network, self.options = network(), options

    def training_step(self, batch):
        return loss(self.network, *batch)

    def configure_optimizers(self):
        optimizer = AdamW(self.parameters(), lr=0.01, use_gc=True, **self.options)
        return [optimizer], [StepLR(optimizer, 1, gamma=0.5)]


def fit(folder, options, epochs=EPOCHS, checkpoint=None):
    module = Digits(options)
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed",
        gradient_clip_val=CLIP,
        max_epochs=epochs,
        callbacks=[] if checkpoint else [ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
        enable_checkpointing=not checkpoint,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), ckpt_path=checkpoint)
    return module.network


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("options", [{}, {"gc_loc": False}], ids=["", "GC on the update"])
def test_weights_and_resume_are_those_of_the_loop_in_torch(tmp_path, options):
    trained = fit(tmp_path, options)
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.01, use_gc=True, **options)
    for lr in (0.01, 0.005):
        optimizer.param_groups[0]["lr"] = lr
        train(model, optimizer, epochs=1, clip=CLIP, dtype=torch.bfloat16)
    assert_same_weights(trained, model)
    resumed = fit(tmp_path, options, checkpoint=tmp_path / "epoch=0.ckpt")
    assert_same_weights(resumed, model)
    moved = (row_means(trained[0].weight) - row_means(network()[0].weight)).abs().max()
    assert (moved < 1e-6) == ("gc_loc" in options)
