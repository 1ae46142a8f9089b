"""The common base of this package's image datasets: options and their checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from classy_vision.dataset import DATASET_REGISTRY, ClassyDataset
from classy_vision.dataset.transforms import build_transforms
from torch.utils.data import DataLoader, Subset

from classy_gc.options import (
    BOOL,
    COUNT,
    COUNT_OR_ZERO,
    REQUIRED,
    Rule,
    check_known,
    check_options,
    is_integer,
    registered_name,
)

_SPLITS = ("train", "validation", "test")
_DEFAULT_TRANSFORMS = ({"name": "generic_image_transform", "transforms": [{"name": "ToTensor"}]},)


class ImageDataset(ClassyDataset):
    """Base of datasets whose samples are ``(PIL image, int)``, as in Classy Vision's CIFAR.

    A subclass loads its images in ``_samples``, and adds the options of that method to ``OPTIONS``.

    Args:
        split (str): ``train``, ``validation`` or ``test``
        batchsize_per_replica (int): batch size on each replica, > 0
        shuffle (bool): a new order every epoch; ``use_shuffle`` in a config
        transform (callable, optional): of a sample; ``transforms`` in a config, a list for Classy
            Vision's ``build_transforms`` (default: None; in a config ``generic_image_transform``
            with ``ToTensor``)
        num_samples (int, optional): use only so many, the first ones (default: None, all)
        num_validation (int): how many of the last training images form the split ``validation``;
            the split ``train`` then lacks them (default: 0)
        random_subset (bool): draw the ``num_samples`` at random instead of taking the first. The
            draw depends on the seed of torch, so on ``classy-gc train --seed`` and the seeds of
            ``classy-gc compare`` (default: False)
        num_workers (int): processes that load data (default: 0, load in the training process)
        drop_last (bool): leave out the last batch of an epoch if it is not full, since batch
            normalization needs more than a few images (default: False)
        **options: by keyword, the last four above and those that the subclass adds to ``OPTIONS``.

    Raises:
        ValueError: an unknown or missing key, or a value that is not allowed.
    """

    #: option: (default, rule)
    OPTIONS: ClassVar[Mapping[str, tuple[Any, Rule]]] = {
        "split": (REQUIRED, Rule("'train', 'validation' or 'test'", lambda v: v in _SPLITS)),
        "batchsize_per_replica": (REQUIRED, COUNT),
        "use_shuffle": (REQUIRED, BOOL),
        "num_validation": (0, COUNT_OR_ZERO),
        "random_subset": (False, BOOL),
        "num_workers": (0, COUNT_OR_ZERO),
        "drop_last": (False, BOOL),
    }

    def __init__(
        self,
        split: str,
        batchsize_per_replica: int,
        shuffle: bool,
        transform: Callable[[Any], Any] | None = None,
        num_samples: int | None = None,
        **options: Any,
    ) -> None:
        options |= {"split": split, "use_shuffle": shuffle}
        options["batchsize_per_replica"] = batchsize_per_replica
        options = check_options(options, self.OPTIONS, self._label())
        held_out = options["num_validation"]
        if (split == "validation" and not held_out) or (split == "test" and held_out):
            allowed = "0" if held_out else "> 0"
            self._refuse("num_validation", f"{allowed} for the split {split!r}", held_out)
        if options["random_subset"] and num_samples is None:
            raise ValueError(f"{self._label()}: random_subset needs num_samples")
        source = {k: v for k, v in options.items() if k not in ImageDataset.OPTIONS}
        samples = self._samples("test" if split == "test" else "train", **source)
        if held_out:  # the two splits share the samples
            train = len(samples) - held_out
            if train < 1:
                self._refuse("num_validation", f"an integer from 0 to {len(samples) - 1}", held_out)
            part = range(train) if split == "train" else range(train, len(samples))
            samples = Subset(samples, part)
        if num_samples is not None and not (
            is_integer(num_samples) and 0 < num_samples <= len(samples)
        ):
            self._refuse("num_samples", f"null or an integer from 1 to {len(samples)}", num_samples)
        if options["random_subset"]:
            # A separate generator, so that the weights do not depend on the subset.
            generator = torch.Generator().manual_seed(torch.initial_seed())
            chosen = torch.randperm(len(samples), generator=generator)[:num_samples]
            samples = Subset(samples, chosen.tolist())
        super().__init__(samples, batchsize_per_replica, shuffle, transform, num_samples)
        self.set_num_workers(options["num_workers"])
        self.drop_last = options["drop_last"]
        if self.drop_last and len(self) < self.get_global_batchsize():
            raise ValueError(
                f"{self._label()}: drop_last leaves no batch of {len(self)} images, with a batch "
                f"size of {self.get_global_batchsize()}"
            )

    def _refuse(self, key: str, allowed: str, value: Any) -> NoReturn:
        raise ValueError(f"{self._label()}: {key} must be {allowed}, not {value!r}")

    def iterator(self, *args: Any, **kwargs: Any) -> DataLoader:
        """As in Classy Vision, except for ``drop_last``."""
        loader = super().iterator(*args, **kwargs)
        loader.batch_sampler.drop_last = self.drop_last
        return loader

    def _samples(self, split: str, **source: Any) -> Sequence[tuple[Any, int]]:
        """The images of a split with their classes."""
        raise NotImplementedError

    @classmethod
    def _label(cls) -> str:
        return f"dataset {registered_name(cls, DATASET_REGISTRY)!r}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageDataset:
        """Instantiates the dataset from a configuration, which is not changed.

        Args:
            config: ``name``, and the arguments of the class under their config names.

        Raises:
            ValueError: an unknown or missing key, or a value that is not allowed.
        """
        check_known(config, ["name", *cls.OPTIONS, "num_samples", "transforms"], cls._label())
        options = {key: value for key, value in config.items() if key in cls.OPTIONS}
        options = check_options(options, cls.OPTIONS, cls._label())
        transforms = config.get("transforms")
        try:
            transform = build_transforms(_DEFAULT_TRANSFORMS if transforms is None else transforms)
        except Exception as error:  # the classes may raise anything
            raise ValueError(
                f"{cls._label()}: transforms must be a list of transforms with their names and "
                f"arguments: {error}, in {transforms!r}"
            ) from error
        shuffle, num_samples = options.pop("use_shuffle"), config.get("num_samples")
        return cls(shuffle=shuffle, transform=transform, num_samples=num_samples, **options)
