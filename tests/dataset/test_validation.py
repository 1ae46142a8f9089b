"""The validation split and random subsets, of digits and of files as torchvision has them."""

import numpy as np
import pytest
import torch
from classy_vision.dataset import build_dataset

import classy_gc  # noqa: F401

COMMON = {"name": "digits", "batchsize_per_replica": 8, "use_shuffle": False}


def images(**options):
    dataset = build_dataset({**COMMON, **options})
    return [bytes(np.asarray(dataset.dataset[i][0])) for i in range(len(dataset))]


def test_validation_is_the_last_part_of_the_training_images():
    every = images(split="train")
    assert images(split="train", num_validation=200) == every[:-200]
    assert images(split="validation", num_validation=200) == every[-200:]
    assert images(split="validation", num_validation=200, num_samples=3) == every[-200:-197]


def test_the_seed_draws_a_subset_and_no_other_random_number():
    subset = {"split": "train", "num_validation": 200, "num_samples": 600, "random_subset": True}
    drawn = []
    for seed in (100, 100, 101):
        torch.manual_seed(seed)
        torch.rand(len(drawn))  # however much was drawn before
        state = torch.get_rng_state()
        drawn.append(images(**subset))
        assert torch.equal(torch.get_rng_state(), state)
    every = images(split="train")[:-200]
    assert drawn[0] == drawn[1]
    assert sorted(drawn[0]) != sorted(drawn[2])
    assert drawn[0] != every[:600]
    assert set(drawn[0]) <= set(every)
    # Hypergeometric: 600 of 1242 twice have 290 in common on average, with a deviation of 9.
    assert 240 < len(set(drawn[0]) & set(drawn[2])) < 340
    assert len(set(drawn[0])) >= 598  # no replacement; a few digits are twins


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "num_validation must be > 0 for the split 'validation', not 0"),
        ({"split": "test", "num_validation": 5}, "must be 0 for the split 'test', not 5"),
        ({"split": "train", "num_validation": -1}, "num_validation must be an integer >= 0"),
        ({"split": "train", "num_validation": 1442}, "an integer from 0 to 1441, not 1442"),
        ({"split": "train", "random_subset": True}, "must be false without num_samples, not True"),
        ({"split": "train", "random_subset": 1}, "random_subset must be true or false, not 1"),
        (
            {"split": "validation", "num_validation": 9, "num_samples": 10},
            "null or an integer from 1 to 9, not 10",
        ),
    ],
)
def test_what_is_not_allowed_is_named(options, message):
    with pytest.raises(ValueError, match=f"dataset 'digits': .*{message}"):
        build_dataset({**COMMON, **options})
