import copy
import functools
import gzip
import hashlib
import json
import pickle
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from classy_vision.dataset import build_dataset
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

import classy_gc  # noqa: F401

CONFIGS = Path(__file__).parents[2] / "configs"
SPLITS = {"train": 20, "test": 10}
NAMES = {"fashion_mnist": FashionMNIST, "cifar10": CIFAR10, "cifar100": CIFAR100}
FOLDERS = {
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}
RECIPES = {
    "fashion_mnist": "fashion_mnist_sgd_gc",
    "cifar10": "cifar10_resnet18_sgd_gc",
    "cifar100": "cifar100_resnet18_sgd_gc",
}


def images(name, split):
    """What is in the files: images of height × width × channel, each with a class."""
    rng = np.random.default_rng([len(name), SPLITS[split]])
    shape = (28, 28, 1) if name == "fashion_mnist" else (32, 32, 3)
    classes = np.arange(SPLITS[split]) % (100 if name == "cifar100" else 10)
    return rng.integers(0, 256, (SPLITS[split], *shape), dtype=np.uint8), classes


def idx(array):
    """An array of bytes in the format of MNIST: http://yann.lecun.com/exdb/mnist/."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def contents(name):
    """What the files hold, in the format of the real ones."""
    if name == "fashion_mnist":
        for split, prefix in (("train", "train"), ("test", "t10k")):
            pixels, classes = images(name, split)
            yield f"{prefix}-images-idx3-ubyte", idx(pixels[..., 0])
            yield f"{prefix}-labels-idx1-ubyte", idx(classes)
        return
    labels = "labels" if name == "cifar10" else "fine_labels"
    for split, files in (("train", NAMES[name].train_list), ("test", NAMES[name].test_list)):
        pixels, classes = images(name, split)
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        parts = np.array_split(np.arange(len(rows)), len(files))
        for (file, _), part in zip(files, parts, strict=True):
            batch = {"data": rows[part], labels: classes[part].tolist()}
            yield file, pickle.dumps(batch, protocol=2)
    meta = NAMES[name].meta
    yield meta["filename"], pickle.dumps({meta["key"]: [f"class {i}" for i in range(100)]})


def md5(data):
    return hashlib.md5(data).hexdigest()


def write(name, root, monkeypatch):
    """Writes the files; they are smaller than the real ones, so their checksums differ."""
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    sums = {}
    for file, data in contents(name):
        (folder / file).write_bytes(data)
        sums[file] = md5(data)
    if name != "fashion_mnist":
        source = NAMES[name]
        for table in ("train_list", "test_list"):
            lists = [[file, sums[file]] for file, _ in getattr(source, table)]
            monkeypatch.setattr(source, table, lists)
        meta = {**source.meta, "md5": sums[source.meta["filename"]]}
        monkeypatch.setattr(source, "meta", meta)
    return folder


def config(name, root, split="test"):
    common = {"batchsize_per_replica": 5, "use_shuffle": False}
    return {"name": name, "split": split, "root": str(root), **common}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_samples_are_the_images_of_the_files_as_rgb(name, split, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    wanted = config(name, tmp_path, split)
    before = copy.deepcopy(wanted)
    dataset = build_dataset(wanted)
    assert wanted == before
    pixels, classes = images(name, split)
    assert len(dataset) == len(pixels)
    for i, (expected, label) in enumerate(zip(pixels, classes, strict=True)):
        image, target = dataset.dataset[i]
        assert (image.mode, target, type(target)) == ("RGB", label, int)
        assert np.array_equal(np.asarray(image), np.broadcast_to(expected, (*image.size, 3)))
    size = pixels.shape[1]
    assert dataset[0]["input"].shape == (3, size, size)
    assert [len(batch["target"]) for batch in dataset.iterator()] == [5] * (len(pixels) // 5)


@pytest.mark.parametrize("name", NAMES)
def test_its_config_trains_an_epoch(name, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    recipe = json.loads((CONFIGS / f"{RECIPES[name]}.json").read_text())
    recipe |= {"num_epochs": 1, "use_gpu": False}
    recipe["optimizer"]["param_schedulers"]["lr"] = {"name": "constant", "value": 0.1}
    for dataset in recipe["dataset"].values():
        assert dataset["name"] == name
        dataset |= {"root": str(tmp_path), "batchsize_per_replica": 5, "num_workers": 0}
    if name != "fashion_mnist":  # as wide as a test can afford
        recipe["model"]["init_planes"] = 4
        recipe["model"]["heads"][0]["in_plane"] = 32
    task = build_task(recipe)
    before = [p.detach().clone() for p in task.base_model.parameters()]
    LocalTrainer().train(task)
    assert task.num_updates == SPLITS["train"]
    changed = zip(before, task.base_model.parameters(), strict=True)
    assert sum(not a.equal(b) for a, b in changed) == len(before)
    assert len(task.losses) == SPLITS["test"] // 5


@pytest.mark.parametrize("packed", [False, True, None], ids=["plain", "gz", "mixed"])
@pytest.mark.parametrize("inside", [False, True], ids=["the files", "torchvision's folder"])
@pytest.mark.parametrize("name", NAMES)
def test_files_where_they_lie(name, inside, packed, tmp_path, monkeypatch):
    """Packed or unpacked, as in Debian; in the root itself, or where torchvision looks."""
    folder = write(name, tmp_path, monkeypatch)
    for i, file in enumerate(sorted(folder.iterdir())):
        if packed or (packed is None and i % 2):
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for split in SPLITS:
        dataset = build_dataset(config(name, tmp_path if inside else folder, split))
        pixels, classes = images(name, split)
        assert [target for _, target in dataset.dataset] == classes.tolist()
        assert np.array_equal(np.asarray(dataset.dataset[3][0])[..., :1], pixels[3][..., :1])
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


@pytest.fixture
def server(tmp_path):
    """A web server, and the folder that it serves."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def move(name, folder, server, monkeypatch):
    """Moves the files into archives on the server, and their URLs there."""
    source = NAMES[name]
    root, url = server
    if name == "fashion_mnist":
        resources = []
        for file in sorted(folder.iterdir()):
            data = gzip.compress(file.read_bytes())
            (root / f"{file.name}.gz").write_bytes(data)
            resources.append((f"{file.name}.gz", md5(data)))
            file.unlink()
        monkeypatch.setattr(source, "resources", resources)
        monkeypatch.setattr(source, "mirrors", [url])
        return
    path = root / source.filename
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    for file in folder.iterdir():
        file.unlink()
    monkeypatch.setattr(source, "url", url + path.name)
    monkeypatch.setattr(source, "tgz_md5", md5(path.read_bytes()))


@pytest.mark.parametrize("name", NAMES)
def test_download(name, tmp_path, server, monkeypatch):
    folder = write(name, tmp_path / "data", monkeypatch)
    move(name, folder, server, monkeypatch)
    wanted = config(name, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="set download to true"):
        build_dataset(wanted)
    dataset = build_dataset({**wanted, "download": True})
    assert len(dataset) == SPLITS["test"]
    assert len(build_dataset(wanted)) == SPLITS["test"]  # from now on


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_named_with_their_source(name, tmp_path, monkeypatch):
    folder = write(name, tmp_path, monkeypatch)
    missing = sorted(path.name for path in folder.iterdir())[-1]
    (folder / missing).unlink()
    url = FashionMNIST.mirrors[0] if name == "fashion_mnist" else NAMES[name].url
    with pytest.raises(FileNotFoundError) as error:
        build_dataset(config(name, tmp_path))
    text = str(error.value)
    assert text.startswith(f"dataset '{name}': {folder} lacks {missing}; set download to true")
    assert url in text
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/nowhere/{FOLDERS[name]} lacks"):
        build_dataset(config(name, tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused(name, tmp_path, monkeypatch):
    folder = write(name, tmp_path, monkeypatch)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match=f"dataset '{name}': torchvision cannot read the files"):
        build_dataset(config(name, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rot": "/data"}, "unknown key 'rot' in dataset 'cifar10', did you mean 'root'"),
        ({"root": None}, "dataset 'cifar10': root must be the path of a folder, not None"),
        ({"download": 1}, "dataset 'cifar10': download must be true or false, not 1"),
        (
            {"split": "val"},
            "dataset 'cifar10': split must be 'train', 'validation' or 'test', not 'val'",
        ),
        ({"num_samples": 11}, "num_samples must be null or an integer from 1 to 10, not 11"),
    ],
)
def test_bad_values_are_refused(change, message, tmp_path, monkeypatch):
    write("cifar10", tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=message):
        build_dataset({**config("cifar10", tmp_path), **change})


def test_root_is_needed():
    with pytest.raises(ValueError, match="missing key 'root' in dataset 'cifar10'"):
        build_dataset({k: v for k, v in config("cifar10", "").items() if k != "root"})


def test_a_home_folder(tmp_path, monkeypatch):
    write("fashion_mnist", tmp_path / "data", monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(build_dataset(config("fashion_mnist", "~/data"))) == SPLITS["test"]
