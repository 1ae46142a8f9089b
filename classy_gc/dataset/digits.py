"""``digits``: the 1797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from collections import Counter

import numpy as np
from classy_vision.dataset import register_dataset
from PIL import Image

from classy_gc.dataset.image_dataset import ImageDataset
from classy_gc.options import check_installed


@register_dataset("digits")
class DigitsDataset(ImageDataset):
    """``digits``: scikit-learn's ``load_digits``; nothing is downloaded.

    Every fifth image of each digit is a test image, so the split is the same everywhere:
    1442 train and 355 test images, with the same share of each digit. Samples are as in Classy
    Vision's CIFAR datasets, ``(PIL image, int)``, here RGB of 8x8 pixels.

    Args:
        split (str): ``train``, ``validation`` or ``test``
        batchsize_per_replica (int): batch size on each replica, > 0
        use_shuffle (bool): a new order every epoch
        transforms (list, optional): of a sample, for Classy Vision's ``build_transforms`` (default:
            None, ``generic_image_transform`` with ``ToTensor``)
        num_samples (int, optional): use only so many, the first ones (default: None, all)
        num_validation (int): how many of the last training images form the split ``validation``;
            the split ``train`` then lacks them (default: 0)
        random_subset (bool): draw the ``num_samples`` at random instead of taking the first, a
            different draw for each seed of torch (default: False)
        num_workers (int): processes that load data. Starting one takes longer than loading
            all of these images (default: 0)
        drop_last (bool): leave out the last batch of an epoch if it is not full, since batch
            normalization needs more than a few images (default: False)

    Raises:
        ValueError: an unknown key, a value that is not allowed, or scikit-learn is missing.

    Source: https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html

    Example:
        >>> from classy_vision.dataset import build_dataset
        >>> config = {"name": "digits", "batchsize_per_replica": 4, "use_shuffle": False}
        >>> dataset = build_dataset({**config, "split": "test"})
        >>> sample = dataset[0]
        >>> len(dataset), sample["input"].shape, sample["target"]
        (355, torch.Size([3, 8, 8]), 5)
    """

    def _samples(self, split: str) -> list[tuple[Image.Image, int]]:
        check_installed("scikit-learn", self._label(), module="sklearn")
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        seen: Counter[int] = Counter()
        samples = []
        for image, target in zip(images, digits.target.tolist(), strict=True):
            seen[target] += 1
            if (seen[target] % 5 == 0) == (split == "test"):
                # Classy Vision's models take three channels.
                samples.append((Image.fromarray(image).convert("RGB"), target))
        return samples
