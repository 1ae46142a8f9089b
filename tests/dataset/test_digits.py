import copy
import sys

import numpy as np
import pytest
import torch
from classy_vision.dataset import build_dataset
from sklearn.datasets import load_digits

import classy_gc  # noqa: F401

CONFIG = {"name": "digits", "split": "train", "batchsize_per_replica": 8, "use_shuffle": True}


def test_split_is_fixed_disjoint_and_complete():
    train, test = (build_dataset({**CONFIG, "split": s}).dataset for s in ("train", "test"))
    torch.manual_seed(1)
    np.random.seed(1)
    again = build_dataset(CONFIG).dataset
    assert [image.tobytes() for image, _ in again] == [image.tobytes() for image, _ in train]
    assert (len(train), len(test)) == (1442, 355)
    both = [image.getchannel(0).tobytes() for image, _ in [*train, *test]]
    pixels = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    # Compared as multisets of images: nothing is in both splits, and nothing is lost.
    assert sorted(both) == sorted(map(bytes, pixels))


def test_split_is_stratified():
    for digit in range(10):
        train, test = (
            [target for _, target in build_dataset({**CONFIG, "split": s}).dataset].count(digit)
            for s in ("train", "test")
        )
        assert test == (train + test) // 5


def test_samples_are_rgb_images_with_their_targets():
    digits = load_digits()
    dataset = build_dataset({**CONFIG, "split": "test"}).dataset
    fifth_zero = np.flatnonzero(digits.target == 0)[4]
    image, target = next(sample for sample in dataset if sample[1] == 0)
    assert (image.size, image.mode, target, type(target)) == ((8, 8), "RGB", 0, int)
    expected = np.round(digits.images[fifth_zero] * 255 / 16)
    assert all(np.array_equal(np.asarray(image)[..., c], expected) for c in range(3))


@pytest.mark.parametrize(
    "transforms",
    [
        None,
        [{"name": "generic_image_transform", "split": "train"}],
        [
            {"name": "tuple_to_map", "list_of_map_keys": ["input", "target"]},
            {
                "name": "apply_transform_to_key",
                "key": "input",
                "transforms": [
                    {"name": "Resize", "size": 16},
                    {"name": "RandomCrop", "size": 16, "padding": 2},
                    {"name": "ToTensor"},
                ],
            },
        ],
    ],
)
def test_batches_with_classy_and_torchvision_transforms(transforms):
    dataset = build_dataset({**CONFIG, "num_samples": 20, "transforms": transforms})
    batches = list(dataset.iterator())
    assert [len(batch["target"]) for batch in batches] == [8, 8, 4]
    size = 224 if transforms and "split" in transforms[0] else 16 if transforms else 8
    assert batches[0]["input"].shape == (8, 3, size, size)
    assert dataset.num_workers == 0
    assert len(dataset) == 20


def test_config_is_left_as_it_was():
    config = {**CONFIG, "transforms": [{"name": "generic_image_transform"}]}
    before = copy.deepcopy(config)
    build_dataset(config)
    assert config == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_shufle": True}, "unknown key 'use_shufle' .* did you mean 'use_shuffle'"),
        ({"root": "/data"}, "unknown key 'root' in dataset 'digits'"),
        ({"split": "val"}, "split must be 'train', 'validation' or 'test', not 'val'"),
        ({"split": None}, "split must be 'train', 'validation' or 'test', not None"),
        ({"batchsize_per_replica": 0}, "batchsize_per_replica must be an integer > 0, not 0"),
        ({"batchsize_per_replica": "8"}, "batchsize_per_replica must be .* not '8'"),
        ({"use_shuffle": 1}, "use_shuffle must be true or false, not 1"),
        ({"num_samples": 0}, "num_samples must be an integer > 0 or null, not 0"),
        ({"num_samples": 1443}, "num_samples must be .* not 1443"),
        ({"num_workers": -1}, "num_workers must be an integer >= 0, not -1"),
        ({"transforms": -1}, "transforms must be a list of transforms, .* not -1"),
        ({"transforms": [{"nam": "X"}]}, "transforms must be a list of transforms, .*'nam'"),
    ],
)
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build_dataset({**CONFIG, **change})


@pytest.mark.parametrize("key", ["split", "batchsize_per_replica", "use_shuffle"])
def test_missing_keys_are_refused(key):
    with pytest.raises(ValueError, match=f"missing key '{key}' in dataset 'digits'"):
        build_dataset({k: v for k, v in CONFIG.items() if k != key})


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"pip install 'classy-gc\[examples\]'"):
        build_dataset(CONFIG)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [32, 32, 3]), (True, [32, 32])])
def test_the_last_batch(drop_last, sizes):
    config = {"name": "digits", "split": "train", "batchsize_per_replica": 32, "num_samples": 67}
    dataset = build_dataset({**config, "use_shuffle": True, "drop_last": drop_last})
    batches = dataset.iterator()
    assert [len(batch["target"]) for batch in batches] == sizes
    assert len(batches) == len(sizes)


def test_no_batch_at_all_is_refused():
    config = {"name": "digits", "split": "train", "batchsize_per_replica": 32, "num_samples": 31}
    with pytest.raises(ValueError, match="drop_last must be false for 31 images"):
        build_dataset({**config, "use_shuffle": True, "drop_last": True})
