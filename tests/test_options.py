"""What an option accepts, and the messages for anything else."""

import math

import pytest

from classy_gc.options import (
    BETAS,
    BOOL,
    FRACTION,
    GC_FLAG,
    MAPPING,
    NON_NEGATIVE,
    SHARE,
    SWITCH,
    check_known,
    check_options,
)

ODD = [None, "1", "", [], {}, math.nan, math.inf, -math.inf, 1j]
# A rule, what it accepts, what it does not.
RULES = [
    (NON_NEGATIVE, [0, 0.0, 1, 0.1, 1e300], [*ODD, True, False, -1, -1e-9]),
    (FRACTION, [0, 0.0, 0.9, 0.999999], [*ODD, True, False, -0.1, 1, 1.0]),
    (BETAS, [[0, 0.9], (0.9, 0.999), [0, 0]], [*ODD, 0.9, [0.9], [0.9] * 3, [0.9, 1], [True, 0]]),
    (SHARE, [0, 0.5, 1], [*ODD, True, -0.1, 1.1]),
    (BOOL, [True, False], [*ODD, 0, 1, 0.5, "true"]),
    (GC_FLAG, [True, False, 0, 1, 0.5], [*ODD, "true"]),
    (SWITCH, [True, False, None], [*ODD[1:], 0, 1, "true"]),
    (MAPPING, [{}, {"clip": True}], [*(x for x in ODD if x != {}), 1, [("clip", True)]]),
]


@pytest.mark.parametrize(("rule", "good", "bad"), RULES, ids=[r.allowed for r, *_ in RULES])
def test_rules(rule, good, bad):
    for value in good:
        assert check_options({"x": value}, {"x": (None, rule)}, "y") == {"x": value}
    for value in bad:
        with pytest.raises(ValueError, match=r"^y: x must be ") as caught:
            check_options({"x": value}, {"x": (None, rule)}, "y")
        assert str(caught.value) == f"y: x must be {rule.allowed}, not {value!r}"


def test_what_is_scheduled_is_a_number_or_a_gc_option():
    assert [r.schedulable for r in (NON_NEGATIVE, FRACTION, GC_FLAG)] == [True] * 3
    assert not any(r.schedulable for r in (BETAS, BOOL, SWITCH, MAPPING))


TABLE = {"lr": (0.1, NON_NEGATIVE), "momentum": (0.0, FRACTION), "nesterov": (False, BOOL)}


def test_what_is_not_given_has_its_default_in_the_order_of_the_table():
    given = {"nesterov": True, "lr": 1}
    result = check_options(given, TABLE, "optimizer 'x'")
    assert list(result.items()) == [("lr", 1), ("momentum", 0.0), ("nesterov", True)]
    assert given == {"nesterov": True, "lr": 1}
    assert check_options({}, TABLE, "x") == {"lr": 0.1, "momentum": 0.0, "nesterov": False}


def test_an_unknown_key_comes_before_a_bad_value():
    with pytest.raises(ValueError, match="unknown key 'momentun' in optimizer 'x', did you mean"):
        check_options({"lr": -1, "momentun": 0.9}, TABLE, "optimizer 'x'")


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (
            ["lr", "momentun"],
            "key",
            "unknown key 'momentun' in y, did you mean 'momentum'? known: lr, momentum, nesterov",
        ),
        (["zzz"], "key", "unknown key 'zzz' in y; known: lr, momentum, nesterov"),
        (
            ["LR"],
            "option",
            "unknown option 'LR' in y, did you mean 'lr'? known: lr, momentum, nesterov",
        ),
        ([3], "key", "unknown key 3 in y; known: lr, momentum, nesterov"),
        ([None], "key", "unknown key None in y; known: lr, momentum, nesterov"),
    ],
)
def test_unknown_names(names, kind, message):
    with pytest.raises(ValueError, match="unknown") as caught:
        check_known(names, TABLE, "y", kind)
    assert str(caught.value) == message


def test_known_names_are_told_once():
    check_known(["a", "b"], ["a", "b", "a"], "y")
    check_known([], [], "y")
    with pytest.raises(ValueError, match=r"known: a, b$"):
        check_known(["qqq"], iter(["a", "b", "a"]), "y")
