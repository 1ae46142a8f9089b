"""``fashion_mnist``, ``cifar10``, ``cifar100``: torchvision's datasets, from files on the disk."""

import gzip
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from classy_vision.dataset import register_dataset
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST, VisionDataset

from classy_gc.dataset.image_dataset import ImageDataset
from classy_gc.options import BOOL, REQUIRED, Rule


def _rgb(image: Image.Image) -> Image.Image:
    """An image with the three channels that Classy Vision's models take."""
    return image.convert("RGB")


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

    def _samples(self, split: str, root: str, download: bool) -> VisionDataset:
        folder, names, urls = _files(self.source)
        base = Path(root).expanduser()
        places = (base / folder, base)
        with TemporaryDirectory() as temporary:
            target = Path(temporary, folder)
            try:
                missing = [name for name in names if not _lay_out(name, places, target)]
                if not missing or download:
                    root = base if missing else temporary
                    train = split == "train"
                    return self.source(root, train, transform=_rgb, download=bool(missing))
            except Exception as error:  # errors of the network, the archives, the formats
                reason = f"torchvision cannot read the files in {base}: {error}"
                raise ValueError(f"{self._label()}: {reason}") from error
        remedy = f"set download to true, or put them there, from {' and '.join(urls)}"
        lacks = f"{self._label()}: {places[0]} lacks {', '.join(missing)}"
        raise FileNotFoundError(f"{lacks}; {remedy}")


def _files(source: type[VisionDataset]) -> tuple[str, list[str], list[str]]:
    """The folder where torchvision looks, the files in it, and the URLs that they come from."""
    if issubclass(source, CIFAR10):
        names = [name for name, _ in source.train_list + source.test_list]
        return source.base_folder, [*names, source.meta["filename"]], [source.url]
    archives = [name for name, _ in source.resources]
    names = [name.removesuffix(".gz") for name in archives]
    return f"{source.__name__}/raw", names, [source.mirrors[0] + name for name in archives]


def _lay_out(name: str, folders: Iterable[Path], target: Path) -> bool:
    """Puts a file, unpacked, where torchvision looks for it; False if no folder has it."""
    target.mkdir(parents=True, exist_ok=True)
    files = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    found = next(filter(Path.is_file, files), None)
    if found and found.suffix == ".gz":
        (target / name).write_bytes(gzip.decompress(found.read_bytes()))
    elif found:
        (target / name).symlink_to(found.absolute())
    return found is not None


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
train-images-idx3-ubyte, ...; set download to true, or put them there, from ...
    """

    source = FashionMNIST


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
