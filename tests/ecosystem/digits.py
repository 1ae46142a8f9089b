"""What each framework trains: a small network on the digits; and the same loop in torch."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

BATCH, BATCHES, EPOCHS = 64, 5, 2


def dataset():
    """320 images of shape [1, 8, 8], and their digits."""
    digits = load_digits()
    images = torch.tensor(digits.images[: BATCH * BATCHES], dtype=torch.float32)[:, None] / 16
    return TensorDataset(images, torch.tensor(digits.target[: len(images)]))


def loader():
    return DataLoader(dataset(), batch_size=BATCH)


def loss(model, images, targets):
    # Always in float32: frameworks end autocast in different places.
    return cross_entropy(model(images).float(), targets)


def network():
    """The same weights whenever it is called."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)
    )


def train(
    model, optimizer, *, epochs=EPOCHS, clip=None, dtype=None, accumulate=1, before_step=None
):
    """The loop that the frameworks are compared with.

    Args:
        clip: the largest norm of the gradients (default: None, any)
        dtype: of autocast (default: None, without)
        accumulate: batches a step; the last step may have fewer
        before_step: called with the number of batches seen so far
    """
    batches = list(loader()) * epochs
    for start in range(0, len(batches), accumulate):
        part = batches[start : start + accumulate]
        for images, targets in part:
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                mean = loss(model, images, targets) / len(part)
            mean.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if before_step is not None:
            before_step(start + len(part) - 1)
        optimizer.step()
        optimizer.zero_grad()


def assert_same_weights(actual, wanted):
    torch.testing.assert_close(actual.state_dict(), wanted.state_dict(), rtol=0, atol=0)


def row_means(weight):
    return weight.detach().flatten(1).mean(1)
