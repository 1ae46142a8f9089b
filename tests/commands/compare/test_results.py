import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from classy_gc.commands.compare.results import (
    evaluate,
    headline_of,
    phase_table,
    power_sentence,
    run_metrics,
    scale,
    sentence,
    text,
)
from classy_gc.commands.compare.runs import Run
from classy_gc.commands.compare.statistics import detectable, paired_difference
from classy_gc.commands.flags import Target


def by_seed(values):
    return dict(enumerate(values))


def by_run(logs):
    """The logs of each arm, by seed, as those of runs."""
    return {
        Run(arm, seed, Path(), {}): log
        for arm, of_arm in logs.items()
        for seed, log in of_arm.items()
    }


def log(*accuracies, losses=None):
    """The log of a run with these test accuracies, one an epoch."""
    losses = losses or [1 / (epoch + 1) for epoch in range(len(accuracies))]
    return [
        {"phase": phase, "epoch": epoch + 1.0, "loss": loss, "seconds": 0.5, "meters": meters}
        | {"options": {"lr": 0.1} if phase == "train" else {}}
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
        for phase, meters in (("train", {}), ("test", {"accuracy": {"top_1": accuracy}}))
    ]


def evaluated_logs(phases, seeds, target=None, wanted=None, contrasts=(), correct=None):
    """:func:`evaluate`, of logs; the baseline is the first arm."""
    arms = []
    for name, logs in phases.items():
        runs = [{"seed": seed, **run_metrics(log, target)} for seed, log in logs.items()]
        baseline = arms[0]["name"] if arms else None
        arms.append({"name": name, "baseline": baseline, "seeds": seeds, "runs": runs})
        if correct:
            arms[-1]["correct"] = correct[name]
    headline = headline_of([run for arm in arms for run in arm["runs"]], target)
    return evaluate(arms, headline, wanted, contrasts) | {"seeds": seeds}


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
    assert run_metrics(log(0.5), Target("accuracy/top_1", 0.85))["epochs to target"] is None
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
            "+2.00 points [−10.71, +14.71] (16.33 to 521.22) over 2 seeds: can",
        ),
        ([0.9, 0.8, 0.7], [0.95, 0.85, 0.75001], 1, "over 3 seeds: more than noise (p = "),
        ([0.9, 0.8, 0.7], [0.92, 0.81, 0.715], 5, "from noise among so many comparisons (p = "),
        ([0.9], [0.8], 1, "−10.00 points over 1 seed: without a spread over seeds there is no"),
        ([0.9, 0.8], [0.91, 0.81], 1, "+1.00 points over 2 seeds: without a spread over seeds"),
        ([0.9, 0.8], [0.9, 0.8], 1, "+0.00 points over 2 seeds: without a spread"),
        ([0.9, 0.8, 0.7], [0.9, 0.9, None], 1, "over 2 seeds (2 of 3 pairs): cannot"),
        ([0.9], [None], 1, "no seed has a value in both arms"),
    ],
)
def test_sentences(first, other, adjust, words):
    difference = paired_difference(first, other)
    p = adjust * difference["p"] if "p" in difference else None
    if p is not None:
        for key, std in (("detectable", "std"), ("detectable_high", "std_high")):
            difference[key] = detectable(difference[std], difference["pairs"])
    form = scale("final test accuracy/top_1", [*first, *other])
    assert words in sentence(difference, p, max(len(first), len(other)), form)


def test_evaluation_pairs_seeds_and_corrects_for_all_comparisons():
    base = [0.90, 0.80, 0.85]
    phases = {
        "off": by_seed([log(0.5, x) for x in base]),
        "on": by_seed([log(0.5, x + d) for x, d in zip(base, (0.020, 0.021, 0.022), strict=True)]),
        "half": by_seed([log(0.5, x + d) for x, d in zip(base, (0.01, 0.02), strict=False)]),
    }
    results = evaluated_logs(phases, 3, Target("accuracy/top_1", 0.86))
    off, on, half = results["arms"]
    assert results["headline"] == "final test accuracy/top_1"
    assert off["spread"]["final test accuracy/top_1"]["mean"] == pytest.approx(0.85)
    assert (off["baseline"], on["baseline"]) == (None, "off")
    assert off["epochs to target"] == {"reached": 1, "median": None}  # most never reach it
    assert on["epochs to target"] == {"reached": 2, "median": 2}
    assert on["difference"]["mean"] == pytest.approx(0.021)
    assert on["holm_p"] == pytest.approx(2 * on["difference"]["p"])
    assert half["difference"]["pairs"] == 2
    printed = text(results).splitlines()
    assert "never (1)" in printed[1]
    assert any(line.startswith("  on: +2.10 points [+1.85, +2.35] (") for line in printed)
    assert any("(2 of 3 pairs)" in line for line in printed)
    table = phase_table({"off": {"lr": 1}, "on": {}, "half": {}}, by_run(phases))
    assert len(table) == (3 + 3 + 2) * 2 * 2
    assert table["accuracy/top_1"][1] == 0.5


def test_a_run_that_diverged_shows():
    phases = {"a": by_seed([log(0.1, losses=[math.nan])]), "b": by_seed([log(0.5)])}
    results = evaluated_logs(phases, 1)
    assert results["arms"][0]["spread"]["final train loss"]["mean"] is None
    assert results["arms"][1]["difference"]["pairs"] == 1


def test_an_arm_without_any_run_has_no_numbers():
    phases = {"a": by_seed([log(0.5)]), "b": {}}
    results = evaluated_logs(phases, 1, Target("accuracy/top_1", 0.9))
    _, a, b, *_ = text(results).splitlines()
    assert "never (0)" in a
    assert re.fullmatch(r"b +– +– +– +– +–  0 of 1", b)


def test_settings_are_told_from_what_a_phase_has():
    logs = {"a": {0: log(0.5, losses=[0.25])}}
    row = phase_table({"a": {"loss": "focal", "lr.x": "1"}}, by_run(logs)).iloc[0]
    assert (row["config.loss"], row["config.lr.x"], row["loss"]) == ("focal", "1", 0.25)


def test_without_test_phases_the_train_loss_is_compared():
    phases = {name: by_seed([log(0.5)[:1]] * 2) for name in "ab"}
    results = evaluated_logs(phases, 2)
    assert results["headline"] == "final train loss"
    assert results["arms"][1]["verdict"].startswith("+0 over 2 seeds: without a spread")
    assert text(results).splitlines()[1].startswith("a ")


def test_power_and_disagreement_are_printed():
    phases = {
        "off": by_seed([log(x) for x in (0.5, 0.5, 0.5)]),
        "on": by_seed([log(x) for x in (0.51, 0.5, 0.49)]),
    }
    correct = {"off": by_seed(["1100"] * 3), "on": by_seed(["1011", "1010", "111"])}
    results = evaluated_logs(phases, 3, wanted=2.0, correct=correct)
    on = results["arms"][1]
    # Differences of a point each: of standard deviation 1.
    assert on["difference"]["std"] == pytest.approx(0.01)
    assert on["mcnemar"] == {"seeds": 2, "only_first": 2, "only_other": 3, "p": 1.0}
    printed = text(results)
    words = "right where the other is wrong: 3 test samples, the baseline: 2, of 2 seeds (McNemar's"
    assert words in printed
    assert "    a difference of 2 points needs 5 seeds, or 80 if they spread as much" in printed
    assert "find in 80% of all cases" in printed


def evaluated(target=None, seeds=3, **accuracies):
    phases = {arm: by_seed([log(x) for x in values]) for arm, values in accuracies.items()}
    return evaluated_logs(phases, seeds, target)


def test_what_float32_rounds_is_no_difference():
    """One more image of 10,000 in each seed, in the meter's float32."""
    counts = [8573, 8600, 8411]
    off, on = ([float(np.float32(n + k) / np.float32(1e4)) for n in counts] for k in (0, 1))
    (_, arm) = evaluated(off=off, on=on)["arms"]
    assert arm["verdict"].startswith("+0.01 points over 3 seeds: without a spread")
    assert (arm["holm_p"], arm["sign_flip_p"]) == (None, None)
    (_, arm) = evaluated(off=off, on=[x * (1 + 1e-7) for x in off])["arms"]
    assert arm["verdict"].startswith("+0.00 points over 3 seeds: without a spread")


def test_ties_of_different_rounding_are_ties():
    rng = np.random.default_rng(0)
    for _ in range(500):
        counts = rng.integers(8000, 9000, 5).astype(np.float32)
        first, other = counts / np.float32(1e4), counts * np.float32(1e-4)
        assert paired_difference(first, other) == {"pairs": 5, "mean": 0.0}


def test_one_run_that_is_no_number_changes_neither_units_nor_rows():
    results = evaluated(off=[0.5, math.nan, 0.75], on=[0.5, 0.5, 0.75])
    _, off, on, *_ = text(results).splitlines()
    assert re.search(r"62.50 ± 17.68 % \(2 of 3\)", off)
    assert re.search(r"58.33 ± 14.43 %  ", on)
    assert "points" in results["arms"][1]["verdict"]
    (only,) = evaluated(seeds=1, off=[math.nan])["arms"]
    assert only["spread"]["final test accuracy/top_1"] == {"n": 0, "mean": None, "std": None}


def test_a_loss_that_is_null_is_left_out_and_counted():
    logs = [log(0.5, losses=[x]) for x in (0.25, math.nan, 0.75)]
    results = evaluated_logs({"a": by_seed(logs)}, 3)
    assert "0.5 ± 0.3536 (2 of 3)" in text(results)


def test_a_meter_where_lower_is_better():
    run = [
        {**phase, "meters": {"error": {"mean": x}}}
        for x, phase in zip((3.0, 3.0, 1.0, 1.0, 2.0, 2.0), log(0, 0, 0), strict=True)
    ]
    target = Target("error/mean", 1.5, lower=True)
    metrics = run_metrics(run, target)
    assert metrics["best test error/mean"] == 1
    assert metrics["epochs to target"] == 2
    results = evaluated_logs({"a": {0: run}}, 1, target)
    assert results["arms"][0]["epochs to target"] == {"reached": 1, "median": 2}


def test_contrasts_and_interactions():
    """on,b gains 3, 4, 5 over off,b; on,a gains 1 each over off,a."""
    arms = {
        "off,a": [0.50, 0.60, 0.70],
        "on,a": [0.51, 0.61, 0.71],
        "off,b": [0.50, 0.55, 0.60],
        "on,b": [0.53, 0.59, 0.65],
    }
    phases = {arm: by_seed([log(x) for x in values]) for arm, values in arms.items()}
    contrasts = [["on,a", "off,b"], list(arms)]
    results = evaluated_logs(phases, 3, contrasts=contrasts)
    plain, interaction = results["contrasts"]
    difference = stats.ttest_rel(arms["off,b"], arms["on,a"])
    assert plain["difference"]["p"] == pytest.approx(difference.pvalue)
    assert interaction["difference"]["mean"] == pytest.approx(0.03)  # 4 on average, less 1
    assert interaction["difference"]["p"] == pytest.approx(
        stats.ttest_1samp([0.02, 0.03, 0.04], 0).pvalue
    )
    assert results["comparisons"] == 4  # on,a against off,a has no spread
    printed = text(results)
    assert "\noff,b against on,a: −6.00 points" in printed
    assert "\ngain of on,b over off,b, less that of on,a over off,a: +3.00 points" in printed


def test_sign_flips_and_correlations_are_told_beside_the_t_test():
    off, on = [0.50, 0.60, 0.70], [0.51, 0.62, 0.74]
    (_, arm) = evaluated(off=off, on=on)["arms"]
    assert arm["sign_flip_p"] == 0.25  # 2 of the 8 signs
    found = arm["difference"]["correlation"]
    assert found == pytest.approx(stats.pearsonr(off, on).statistic)
    assert "sign-flip test: p = 0.25; correlation of the pairs: 1.00" in text(
        evaluated(off=off, on=on)
    )


def test_what_is_detectable_counts_all_comparisons():
    arms = {"off": [0.50, 0.60, 0.70], "a": [0.51, 0.62, 0.74], "b": [0.5, 0.63, 0.7]}
    one = evaluated(off=arms["off"], a=arms["a"])["arms"][1]["difference"]
    two = evaluated(**arms)["arms"][1]["difference"]
    std = one["std"]
    assert one["detectable"] == pytest.approx(detectable(std, 3))
    assert two["detectable"] == pytest.approx(detectable(std, 3, 2))
    # The upper end of the 95 % interval of the standard deviation.
    most = std * math.sqrt(2 / stats.chi2.ppf(0.025, 2))
    assert one["detectable_high"] == pytest.approx(detectable(most, 3))


@pytest.mark.parametrize(("wanted", "seeds"), [(1e-10, "more than a million"), (1e300, "2")])
def test_power_of_the_smallest_and_largest(wanted, seeds):
    difference = paired_difference([0.5, 0.6], [0.6, 0.5])
    sentence = power_sentence(difference, wanted, scale("final test accuracy/top_1", []))
    assert f"needs {seeds} seeds, or {seeds} if" in sentence


def test_growing_seeds_and_different_machines_are_told():
    results = evaluated(off=[0.5], on=[0.5])
    machines = [{"torch": "2.9.0", "runs": 3}, {"torch": "2.10.0", "runs": 1}]
    printed = text({**results, "looks": [4, 8], "provenance": machines})
    assert "looked at with 4, 8 seeds" in printed
    assert "not all runs were computed alike" in printed
    assert "  torch 2.10.0, runs 1" in printed
    same = text({**results, "looks": [8], "provenance": machines[:1]})
    assert "looked at" not in same
    assert "alike" not in same
