"""The common base of this package's image datasets: options and their checks."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from classy_vision.dataset import DATASET_REGISTRY, ClassyDataset
from classy_vision.dataset.transforms import build_transforms
from torch.utils.data import DataLoader, Subset

from classy_gc import options

_SPLITS = ("train", "validation", "test")
_SPLIT = options.Rule("'train', 'validation' or 'test'", lambda v: v in _SPLITS)
_TRANSFORMS = options.Rule(
    "a list of transforms, objects with a name",
    lambda v: isinstance(v, list) and all(isinstance(x, Mapping) and "name" in x for x in v),
)
_DEFAULT_TRANSFORMS = ({"name": "generic_image_transform", "transforms": [{"name": "ToTensor"}]},)


class ImageDataset(ClassyDataset):
    """Base of datasets whose samples are ``(PIL image, int)``, as in Classy Vision's CIFAR.

    A subclass loads its images in ``_samples``, and adds the options of that method to ``OPTIONS``.

    Args:
        split (str): ``train``, ``validation`` or ``test``
        batchsize_per_replica (int): batch size on each replica, > 0
        use_shuffle (bool): a new order every epoch
        transforms (list, optional): of a sample, for Classy Vision's ``build_transforms`` (default:
            None, ``generic_image_transform`` with ``ToTensor``)
        num_samples (int, optional): use only so many, the first ones (default: None, all)
        num_validation (int): how many of the last training images form the split ``validation``;
            the split ``train`` then lacks them (default: 0)
        random_subset (bool): draw the ``num_samples`` at random instead of taking the first. The
            draw depends on the seed of torch, so on ``classy-gc train --seed`` and the seeds of
            ``classy-gc compare`` (default: False)
        num_workers (int): processes that load data (default: 0, load in the training process)
        drop_last (bool): leave out the last batch of an epoch if it is not full, since batch
            normalization needs more than a few images (default: False)
        **given: these by keyword, as in a config, and those that the subclass adds.

    Raises:
        ValueError: an unknown or missing key, or a value that is not allowed.
    """

    OPTIONS: ClassVar[options.Table] = {
        "split": (options.REQUIRED, _SPLIT),
        "batchsize_per_replica": (options.REQUIRED, options.COUNT),
        "use_shuffle": (options.REQUIRED, options.BOOL),
        "transforms": (None, options.or_null(_TRANSFORMS)),
        "num_samples": (None, options.or_null(options.COUNT)),
        "num_validation": (0, options.COUNT_OR_ZERO),
        "random_subset": (False, options.BOOL),
        "num_workers": (0, options.COUNT_OR_ZERO),
        "drop_last": (False, options.BOOL),
    }

    def __init__(self, **given: Any) -> None:
        given = options.check_options(given, self.OPTIONS, self._label())
        split, num_samples = given["split"], given["num_samples"]
        held_out = given["num_validation"]
        if (split == "validation" and not held_out) or (split == "test" and held_out):
            allowed = "0" if held_out else "> 0"
            self._refuse("num_validation", f"{allowed} for the split {split!r}", held_out)
        source = {k: v for k, v in given.items() if k not in ImageDataset.OPTIONS}
        samples = self._samples("test" if split == "test" else "train", **source)
        if held_out:  # the two splits share the samples
            train = len(samples) - held_out
            if train < 1:
                self._refuse("num_validation", f"an integer from 0 to {len(samples) - 1}", held_out)
            part = range(train) if split == "train" else range(train, len(samples))
            samples = Subset(samples, part)
        if num_samples is not None and num_samples > len(samples):
            self._refuse("num_samples", f"null or an integer from 1 to {len(samples)}", num_samples)
        if given["random_subset"]:
            if num_samples is None:
                self._refuse("random_subset", "false without num_samples", True)
            # A separate generator, so that the weights do not depend on the subset.
            generator = torch.Generator().manual_seed(torch.initial_seed())
            chosen = torch.randperm(len(samples), generator=generator)[:num_samples]
            samples = Subset(samples, chosen.tolist())
        steps = given["transforms"]
        transform = build_transforms(_DEFAULT_TRANSFORMS if steps is None else steps)
        batch_size, shuffle = given["batchsize_per_replica"], given["use_shuffle"]
        super().__init__(samples, batch_size, shuffle, transform, num_samples)
        self.set_num_workers(given["num_workers"])
        self.drop_last = given["drop_last"]
        if self.drop_last and len(self) < self.get_global_batchsize():
            batch_size = self.get_global_batchsize()
            allowed = f"false for {len(self)} images, with a batch size of {batch_size}"
            self._refuse("drop_last", allowed, True)

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
        return f"dataset {options.registered_name(cls, DATASET_REGISTRY)!r}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ImageDataset":
        """Instantiates the dataset from a configuration, which is not changed.

        Args:
            config: ``name`` and the arguments of the class.

        Raises:
            ValueError: an unknown or missing key, or a value that is not allowed.
        """
        return cls(**{key: value for key, value in config.items() if key != "name"})
