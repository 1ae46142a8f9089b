"""``fashion_mnist``, ``cifar10``, ``cifar100``: torchvision's datasets, from files on the disk."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, NamedTuple

from classy_vision.dataset import register_dataset
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST, VisionDataset

from classy_gc.dataset.image_dataset import ImageDataset
from classy_gc.options import BOOL, REQUIRED, Rule


def _rgb(image: Image.Image) -> Image.Image:
    """An image with the three channels that Classy Vision's models take."""
    return image.convert("RGB")


class _Files(NamedTuple):
    """The files that torchvision reads, under its names."""

    folder: str  # below the root, holds the files
    names: list[str]
    unpack_into: str  # below the root, for the files at the URLs
    urls: list[str]


def _cifar(source: type[CIFAR10]) -> _Files:
    names = [name for name, _ in source.train_list + source.test_list]
    return _Files(source.base_folder, [*names, source.meta["filename"]], "", [source.url])


def _mnist(source: type[FashionMNIST]) -> _Files:
    archives = [name for name, _ in source.resources]
    folder = f"{source.__name__}/raw"
    urls = [source.mirrors[0] + name for name in archives]
    return _Files(folder, [name.removesuffix(".gz") for name in archives], folder, urls)


class TorchvisionDataset(ImageDataset):
    """Base of torchvision's datasets: reads torchvision's files where torchvision puts them.

    Gray images become RGB, so that a config for one of these or for ``digits`` needs few changes
    for another. Classy Vision's own ``classy_cifar10`` and ``classy_cifar100`` read the same files,
    but load with four processes whatever ``num_workers`` says, treat any split but ``train`` as the
    test split, and ignore unknown keys.

    The arguments are those of :class:`ImageDataset`, and:

    Args:
        root (str): the parent of the folder that torchvision makes, or a folder with the files
            themselves, each plain or as ``.gz``; ``~`` is your home folder
        download (bool): let torchvision download missing files. Several processes would all
            download, so use one (default: False)

    Raises:
        ValueError: an unknown or missing key, a value that is not allowed, or damaged files.
        FileNotFoundError: files are missing; it names them and their source.
    """

    OPTIONS: ClassVar = {
        **ImageDataset.OPTIONS,
        "root": (REQUIRED, Rule("the path of a folder", lambda v: isinstance(v, str) and v != "")),
        "download": (False, BOOL),
    }
    source: ClassVar[type[VisionDataset]]
    files: ClassVar[Callable[[Any], _Files]]

    def _samples(self, split: str, root: str, download: bool) -> VisionDataset:
        files = type(self).files(self.source)
        base = Path(root).expanduser()
        places = (base / files.folder, base)
        paths = next((x for x in (_find(place, files.names) for place in places) if x), None)
        if not paths and not download:
            missing = [name for name in files.names if not (places[0] / name).is_file()]
            raise FileNotFoundError(
                f"{self._label()}: {places[0]} lacks {', '.join(missing)}; set download "
                f"to true, or unpack into {base / files.unpack_into} the files at "
                f"{' and '.join(files.urls)}"
            )
        source = paths[0].parent if paths else places[0]
        try:
            with TemporaryDirectory() as folder:
                if paths and (source == base or any(path.suffix == ".gz" for path in paths)):
                    root, download = folder, False
                    _lay_out(paths, Path(folder, files.folder))
                return self.source(root, split == "train", transform=_rgb, download=download)
        except Exception as error:  # errors of the network, the archives, the formats
            raise ValueError(
                f"{self._label()}: torchvision cannot read {source}: {error}"
            ) from error


def _find(folder: Path, names: list[str]) -> list[Path] | None:
    """The files with these names in a folder, packed or not; None if one is missing."""
    paths = [next(filter(Path.is_file, (folder / n, folder / f"{n}.gz")), None) for n in names]
    return None if None in paths else paths


def _lay_out(files: list[Path], folder: Path) -> None:
    """Puts files, unpacked, where torchvision looks for them."""
    folder.mkdir(parents=True)
    for path in files:
        if path.suffix == ".gz":
            with gzip.open(path) as packed, (folder / path.stem).open("wb") as file:
                shutil.copyfileobj(packed, file)
        else:
            (folder / path.name).symlink_to(path.absolute())


@register_dataset("fashion_mnist")
class TorchvisionFashionMNIST(TorchvisionDataset):
    """``fashion_mnist``: 60,000 train and 10,000 test images of 28x28 gray pixels, 10 classes.

    The arguments are those of :class:`TorchvisionDataset`; ``root`` has ``FashionMNIST/raw``, or
    the four files. Debian has them, packed: after ``apt-get install dataset-fashion-mnist`` they
    are in ``/usr/share/datasets/fashion-mnist``.

    Source: Xiao et al., *Fashion-MNIST*, https://arxiv.org/abs/1708.07747.

    Example:
        >>> from classy_vision.dataset import build_dataset
        >>> config = {"name": "fashion_mnist", "split": "test", "batchsize_per_replica": 4}
        >>> build_dataset({**config, "use_shuffle": False, "root": "/nowhere"})
        Traceback (most recent call last):
        FileNotFoundError: dataset 'fashion_mnist': /nowhere/FashionMNIST/raw lacks \
train-images-idx3-ubyte, ...; set download to true, or unpack into ...
    """

    source = FashionMNIST
    files = staticmethod(_mnist)


@register_dataset("cifar10")
class TorchvisionCIFAR10(TorchvisionDataset):
    """``cifar10``: 50,000 train and 10,000 test images of 32x32 pixels, 10 classes.

    The arguments are those of :class:`TorchvisionDataset`; ``root`` has ``cifar-10-batches-py``.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html

    Example:
        >>> from classy_vision.dataset import build_dataset
        >>> config = {"name": "cifar10", "split": "test", "batchsize_per_replica": 4}
        >>> build_dataset({**config, "use_shuffle": False, "root": "/nowhere"})
        Traceback (most recent call last):
        FileNotFoundError: dataset 'cifar10': /nowhere/cifar-10-batches-py lacks ...
    """

    source = CIFAR10
    files = staticmethod(_cifar)


@register_dataset("cifar100")
class TorchvisionCIFAR100(TorchvisionDataset):
    """``cifar100``: 50,000 train and 10,000 test images of 32x32 pixels, 100 classes.

    The arguments are those of :class:`TorchvisionDataset`; ``root`` has ``cifar-100-python``.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html

    Example:
        >>> from classy_vision.dataset import build_dataset
        >>> config = {"name": "cifar100", "split": "test", "batchsize_per_replica": 4}
        >>> build_dataset({**config, "use_shuffle": False, "root": "/nowhere"})
        Traceback (most recent call last):
        FileNotFoundError: dataset 'cifar100': /nowhere/cifar-100-python lacks ...
    """

    source = CIFAR100
    files = staticmethod(_cifar)
