"""Arguments of schedulers that Classy Vision would ignore, misread or fail on."""

import re

import pytest
from classy_vision.optim import build_optimizer

CONSTANT = {"name": "constant", "value": 0.1}
LINEAR = {"name": "linear", "start_value": 0.1, "end_value": 0.0}


def multistep(values, **changes):
    return {"name": "multistep", "values": values, **changes}


def composite(*lengths, **changes):
    return {"name": "composite", "schedulers": [CONSTANT] * 2, "lengths": [*lengths], **changes}


def built(schedule, option="lr", num_epochs=4):
    config = {"name": "sgd_gc", "param_schedulers": {option: schedule}}
    return build_optimizer(config | {"num_epochs": num_epochs})


@pytest.mark.parametrize(
    "schedule",
    [
        multistep([0.1, 0.2], milestones=[3]),
        multistep([0.1]),
        multistep([0.1, 0.2, 0.3, 0.4]),
        {"name": "polynomial", "base_value": 0.1, "power": 0.5},
        composite(0.5, 0.5, interval_scaling=["fixed", "rescaled"], update_interval="EPOCH"),
    ],
)
def test_accepted(schedule):
    built(schedule)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "polynomial", "base_value": 0.1, "power": -1}, "power must be a number > 0"),
        ({**LINEAR, "start_value": "a"}, "start_value must be a number, not 'a'"),
        ({**CONSTANT, "update_interval": 3}, "update_interval must be 'step' or 'epoch', not 3"),
        ({"name": "linear", "start_value": 1}, "missing key 'end_value' in optimizer 'sgd_gc': "),
        (multistep([1, 2, 3], milestones=[3, 1]), "must be a list of ascending integers > 0"),
        (multistep([1, 2, 3], milestones=[1.5, 2]), "must be a list of ascending integers > 0"),
        (multistep([1, 2], milestones=[True]), "must be a list of ascending integers > 0"),
        (multistep([1, 2], milestones=[4]), "milestones must be 1 epochs < 4"),
        (multistep([1, 2], milestones=[1, 2]), "milestones must be 1 epochs < 4"),
        (multistep([1, 2, 3, 4, 5]), "not [1, 2, 3, 4]; .* fewer values"),
        (multistep(0.1), "values must be a list, not 0.1"),
        (composite(-0.5, 1.5), "lengths must be a list of shares of the training"),
        (composite(0.5, "1 day"), "lengths must be a list of shares of the training"),
        (composite(0.5, 0.4), "The sum of all values in lengths must be 1"),
        (composite("2 steps", "rest"), "'2 steps' in lengths is only for an outermost scheduler"),
        (
            composite(0.5, 0.5, schedulers=[multistep([1, 2], milestones=[9]), CONSTANT]),
            "schedulers[0]: milestones must be 1 epochs < 4",
        ),
        (
            composite(0.5, 0.5, schedulers=[composite("rest", 0.5), CONSTANT]),
            "schedulers[0]: 'rest' in lengths is only for an outermost scheduler",
        ),
    ],
)
def test_refused_with_key_and_value(schedule, message):
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=pattern) as caught:
        built(schedule)
    assert "optimizer 'sgd_gc': param_schedulers.lr" in str(caught.value)


@pytest.mark.parametrize("values", [[True, False], [1, 0]])
def test_a_schedule_of_a_gc_option_takes_what_the_option_takes(values):
    built({"name": "step", "values": values}, "use_gc")
    build_optimizer({"name": "sgd_gc", "use_gc": values[0]})
    for refused in ("yes", None):
        with pytest.raises(ValueError, match="use_gc must be true or false, or a number"):
            built({"name": "step", "values": [refused]}, "use_gc")
        with pytest.raises(ValueError, match="use_gc must be true or false, or a number"):
            build_optimizer({"name": "sgd_gc", "use_gc": refused})
