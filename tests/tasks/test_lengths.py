"""Lengths of a ``composite`` in steps and epochs become shares of the training."""

import re

import pytest

from classy_gc.tasks.schedules import with_shares


def composite(*lengths):
    return {"name": "composite", "schedulers": [{}] * len(lengths), "lengths": [*lengths]}


@pytest.mark.parametrize(
    ("lengths", "shares"),
    [
        (["25 steps", "rest"], [0.25, 0.75]),
        (["1 step", "rest"], [0.01, 0.99]),
        (["1 epoch", "rest", 0.25], [0.2, 0.55, 0.25]),
        (["2.5 epochs", "2.5 epochs"], [0.5, 0.5]),
        (["25 steps", "3 epochs", 0.15], [0.25, 0.6, 0.15]),
        (["100 steps"], [1.0]),
        (["5 epochs", "rest"], [1.0, 0.0]),
        ([0.25, 0.75], [0.25, 0.75]),
    ],
)
def test_shares(lengths, shares):
    resolved = with_shares(composite(*lengths), num_epochs=5, steps=100)["lengths"]
    assert resolved == pytest.approx(shares)


@pytest.mark.parametrize(
    "lengths", [["101 steps", "rest"], ["6 epochs", "rest"], ["50 steps"], ["rest", "rest"]]
)
def test_lengths_that_do_not_fill_the_training(lengths):
    config = {"param_schedulers": {"lr": composite(*lengths)}}
    message = (
        "optimizer.param_schedulers.lr: lengths must fill the training, 5 epochs or 100 "
        f"steps, with at most one 'rest', not {lengths!r}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        with_shares(config, num_epochs=5, steps=100)


def test_every_outermost_schedule_of_an_optimizer():
    nested = composite("10 steps", "rest")
    around = {"name": "cyclic", "scheduler": nested}
    config = {
        "lr": 0.1,
        "param_schedulers": {"lr": nested, "momentum": around},
        "param_groups": {"custom_keys": {"heads": {"lr": nested, "lr_mult": 2}}},
    }
    resolved = with_shares(config, num_epochs=5, steps=100)
    shares = {**nested, "lengths": [0.1, 0.9]}
    assert resolved == {
        "lr": 0.1,
        "param_schedulers": {"lr": shares, "momentum": around},
        "param_groups": {"custom_keys": {"heads": {"lr": shares, "lr_mult": 2}}},
    }
    assert nested["lengths"] == ["10 steps", "rest"]
