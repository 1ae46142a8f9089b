import math
import re

import pytest

from classy_gc.commands.compare.report import rows, text
from classy_gc.commands.compare.results import evaluate, run_metrics, scale, sentence
from classy_gc.commands.compare.statistics import paired_difference
from classy_gc.commands.flags import Target


def by_seed(values):
    return dict(enumerate(values))


def log(*accuracies, losses=None):
    """Of a run with these test accuracies, an epoch each."""
    losses = losses or [1 / (epoch + 1) for epoch in range(len(accuracies))]
    return [
        {"phase": phase, "epoch": epoch + 1.0, "loss": loss, "seconds": 0.5, "meters": meters}
        | {"options": {"lr": 0.1} if phase == "train" else {}}
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
        for phase, meters in (("train", {}), ("test", {"accuracy": {"top_1": accuracy}}))
    ]


def test_metrics_of_a_run():
    metrics = run_metrics(log(0.5, 0.9, 0.8), Target("accuracy/top_1", 0.85))
    assert metrics == pytest.approx(
        {
            "seconds": 3.0,
            "final train loss": 1 / 3,
            "final test loss": 1 / 3,
            "final test accuracy/top_1": 0.8,
            "best test accuracy/top_1": 0.9,
            "epochs to target": 2.0,
        }
    )
    assert run_metrics(log(0.5), Target("accuracy/top_1", 0.85))["epochs to target"] == math.inf
    assert set(run_metrics(log(0.5)[:1])) == {"seconds", "final train loss"}
    nan = math.nan
    for values in ((0.5, nan), (nan, 0.5, nan)):
        assert run_metrics(log(*values))["best test accuracy/top_1"] == 0.5


@pytest.mark.parametrize(
    ("first", "other", "adjust", "words"),
    [
        (
            [0.9, 0.8],
            [0.91, 0.83],
            1,
            "+2.00 points [−10.71, +14.71] (16.33) over 2 seeds: can",
        ),
        ([0.9, 0.8, 0.7], [0.95, 0.85, 0.75001], 1, "over 3 seeds: more than noise (p = "),
        ([0.9, 0.8, 0.7], [0.92, 0.81, 0.715], 5, "from noise among so many comparisons (p = "),
        ([0.9], [0.8], 1, "−10.00 points over 1 seed: one pair has no interval; give more"),
        ([0.9, 0.8], [0.91, 0.81], 1, "+1.00 points in each of 2 seeds: without any spread"),
        ([0.9, 0.8], [0.9, 0.8], 1, "no difference in any of 2 seeds"),
        ([0.9, 0.8, 0.7], [0.9, 0.9], 1, "over 2 seeds (1 of 3 pairs lacks a value): cannot"),
        ([0.9], [], 1, "no seed has a value in both arms"),
    ],
)
def test_sentences(first, other, adjust, words):
    difference = paired_difference(by_seed(first), by_seed(other))
    p = difference.p and adjust * difference.p
    form = scale("final test accuracy/top_1", [*first, *other])
    assert words in sentence(difference, p, max(len(first), len(other)), form)


def test_evaluation_pairs_seeds_and_corrects_for_all_comparisons():
    base = [0.90, 0.80, 0.85]
    phases = {
        "off": by_seed([log(0.5, x) for x in base]),
        "on": by_seed([log(0.5, x + d) for x, d in zip(base, (0.020, 0.021, 0.022), strict=True)]),
        "half": by_seed([log(0.5, x + d) for x, d in zip(base, (0.01, 0.02), strict=False)]),
    }
    results = evaluate(dict.fromkeys(phases, "off"), phases, 3, Target("accuracy/top_1", 0.86))
    off, on, half = results["arms"]
    assert results["headline"] == "final test accuracy/top_1"
    assert off["spread"]["final test accuracy/top_1"]["mean"] == pytest.approx(0.85)
    assert (off["baseline"], on["baseline"]) == (None, "off")
    assert off["epochs to target"] == {"reached": 1, "median": None}  # most never reach it
    assert on["epochs to target"] == {"reached": 2, "median": 2}
    assert on["difference"]["final test accuracy/top_1"]["mean"] == pytest.approx(0.021)
    assert on["holm_p"] == pytest.approx(2 * on["difference"]["final test accuracy/top_1"]["p"])
    assert half["difference"]["final test accuracy/top_1"]["pairs"] == 2
    printed = text({**results, "failed": []}).splitlines()
    assert "never (1)" in printed[1]
    assert any(line.startswith("  on: +2.10 points [+1.85, +2.35] (") for line in printed)
    assert any("(1 of 3 pairs lacks a value)" in line for line in printed)
    table = rows({"off": {"lr": 1}, "on": {}, "half": {}}, phases)
    assert len(table) == (3 + 3 + 2) * 2 * 2
    assert table[1]["accuracy/top_1"] == 0.5


def test_a_run_that_diverged_shows():
    phases = {"a": by_seed([log(0.1, losses=[math.nan])]), "b": by_seed([log(0.5)])}
    results = evaluate({"a": "a", "b": "a"}, phases, 1)
    assert results["arms"][0]["spread"]["final train loss"]["mean"] is None
    assert results["arms"][1]["difference"]["final train loss"]["pairs"] == 0


def test_an_arm_without_any_run_has_no_numbers():
    phases = {"a": by_seed([log(0.5)]), "b": {}}
    results = evaluate({"a": "a", "b": "a"}, phases, 1, Target("accuracy/top_1", 0.9))
    _, a, b, *_ = text({**results, "failed": []}).splitlines()
    assert "never (0)" in a
    assert re.fullmatch(r"b +– +– +– +– +– \(0\)  0 of 1", b)


def test_a_setting_named_as_what_a_phase_has_is_kept():
    (row, *_) = rows({"a": {"loss": "focal", "lr.x": "1"}}, {"a": {0: log(0.5, losses=[0.25])}})
    assert (row["config.loss"], row["lr.x"], row["loss"]) == ("focal", "1", 0.25)


def test_without_test_phases_the_train_loss_is_compared():
    phases = {name: by_seed([log(0.5)[:1]] * 2) for name in "ab"}
    results = evaluate({"a": "a", "b": "a"}, phases, 2)
    assert results["headline"] == "final train loss"
    assert results["arms"][1]["verdict"] == "no difference in any of 2 seeds"
    assert text({**results, "failed": []}).splitlines()[1].startswith("a ")


def test_power_and_disagreement_are_printed():
    phases = {
        "off": by_seed([log(x) for x in (0.5, 0.5, 0.5)]),
        "on": by_seed([log(x) for x in (0.51, 0.5, 0.49)]),
    }
    correct = {"off": by_seed(["1100"] * 3), "on": by_seed(["1011", "1010", "111"])}
    results = evaluate(dict.fromkeys(phases, "off"), phases, 3, None, correct, 2.0)
    on = results["arms"][1]
    # Differences of a point each: of standard deviation 1.
    assert on["difference"]["final test accuracy/top_1"]["std"] == pytest.approx(0.01)
    assert on["mcnemar"] == {"seeds": 2, "only_first": 2, "only_other": 3, "p": 1.0}
    printed = text({**results, "failed": []})
    assert (
        "alone: 3 test samples, there alone: 2, of 2 seeds (McNemar's exact test: p = 1)" in printed
    )
    assert "    a difference of 2 points needs 5 seeds\n" in printed
    assert "find in 80% of all cases" in printed
    old = {**results, "failed": []}
    for arm in old["arms"]:
        arm.pop("mcnemar", None)
        arm.pop("power", None)
    assert "McNemar" not in text(old)  # of a folder of before
