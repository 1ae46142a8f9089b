"""``digits``: 1797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from classy_vision.dataset import ClassyDataset, register_dataset
from classy_vision.dataset.transforms import build_transforms
from PIL import Image

from classy_gc.options import check_known

_KEYS = (
    "name",
    "split",
    "batchsize_per_replica",
    "use_shuffle",
    "num_samples",
    "transforms",
    "num_workers",
)
_SPLITS = ("train", "test")
_DEFAULT_TRANSFORMS = ({"name": "generic_image_transform", "transforms": [{"name": "ToTensor"}]},)


class _Digits:
    """One split as ``(image, target)`` pairs, as torchvision's CIFAR gives them."""

    def __init__(self, split: str) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "dataset 'digits' needs scikit-learn: pip install 'classy-gc[examples]'"
            ) from error
        digits = load_digits()
        seen: Counter[int] = Counter()
        chosen = []
        for i, target in enumerate(digits.target):
            seen[target] += 1
            if (seen[target] % 5 == 0) == (split == "test"):
                chosen.append(i)
        self.images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self.targets = digits.target[chosen].tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        # Classy Vision's models take three channels.
        return Image.fromarray(self.images[index]).convert("RGB"), self.targets[index]


@register_dataset("digits")
class DigitsDataset(ClassyDataset):
    """``digits``: scikit-learn's ``load_digits``; nothing is downloaded.

    Every fifth image of each digit is a test image, so the split is the same everywhere:
    1442 train and 355 test images, each digit in the same share. A sample is what Classy
    Vision's CIFAR datasets give, ``(PIL image, int)``, here RGB of 8x8 pixels.

    Args:
        split (str): ``train`` or ``test``
        batchsize_per_replica (int): batch size on each replica, > 0
        shuffle (bool): a new order every epoch; ``use_shuffle`` in a config
        transform (callable, optional): of a sample; ``transforms`` in a config, a list as
            Classy Vision's ``build_transforms`` reads it (default: None; in a config
            ``generic_image_transform`` with ``ToTensor``)
        num_samples (int, optional): only the first so many (default: None, all)
        num_workers (int): processes that load data. Starting one takes longer than loading
            all of these images (default: 0)

    Raises:
        ValueError: an unknown key, or a value that is not allowed.
        ImportError: scikit-learn is missing.

    Source: https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html

    Example:
        >>> from classy_vision.dataset import build_dataset
        >>> config = {"name": "digits", "batchsize_per_replica": 4, "use_shuffle": False}
        >>> dataset = build_dataset({**config, "split": "test"})
        >>> sample = dataset[0]
        >>> len(dataset), sample["input"].shape, sample["target"]
        (355, torch.Size([3, 8, 8]), 5)
    """

    def __init__(
        self,
        split: str,
        batchsize_per_replica: int,
        shuffle: bool,
        transform: Callable[[Any], Any] | None = None,
        num_samples: int | None = None,
        num_workers: int = 0,
    ) -> None:
        def check(name: str, value: Any, valid: bool, allowed: str) -> None:
            if not valid:
                raise ValueError(f"dataset 'digits': {name} must be {allowed}, not {value!r}")

        def is_int(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool)

        check("split", split, split in _SPLITS, "'train' or 'test'")
        check(
            "batchsize_per_replica",
            batchsize_per_replica,
            is_int(batchsize_per_replica) and batchsize_per_replica > 0,
            "an integer > 0",
        )
        check("use_shuffle", shuffle, isinstance(shuffle, bool), "true or false")
        check(
            "num_workers", num_workers, is_int(num_workers) and num_workers >= 0, "an integer >= 0"
        )
        dataset = _Digits(split)
        check(
            "num_samples",
            num_samples,
            num_samples is None or (is_int(num_samples) and 0 < num_samples <= len(dataset)),
            f"null or an integer from 1 to {len(dataset)}",
        )
        super().__init__(dataset, batchsize_per_replica, shuffle, transform, num_samples)
        self.set_num_workers(num_workers)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DigitsDataset:
        """Instantiates the dataset from a configuration, which stays as it is.

        Args:
            config: ``name``, and the arguments of the class under their config names.

        Raises:
            ValueError: an unknown or missing key, or a value that is not allowed.
            ImportError: scikit-learn is missing.
        """
        check_known(config, _KEYS, "dataset 'digits'")
        for key in ("split", "batchsize_per_replica", "use_shuffle"):
            if key not in config:
                raise ValueError(f"missing key {key!r} in dataset 'digits'")
        transforms, batchsize_per_replica, shuffle, num_samples = cls.parse_config(config)
        return cls(
            config["split"],
            batchsize_per_replica,
            shuffle,
            build_transforms(_DEFAULT_TRANSFORMS if transforms is None else transforms),
            num_samples,
            config.get("num_workers", 0),
        )
