import json
import math
import re
import shutil
from pathlib import Path

import pytest
from matplotlib.image import imread
from scipy import stats

from classy_gc.commands import main
from classy_gc.commands.compare.summary import picture, read, summarize
from classy_gc.commands.flags import Target
from classy_gc.plots import COLORS
from tests.commands.compare.test_results import evaluated_logs


def write(name, differences, meter="top_1", folder=Path(), target=None):
    """The results of a comparison whose arms differ by these values, seed by seed."""

    def log(accuracy):
        meters = {"accuracy": {meter: accuracy}}
        common = {"epoch": 1.0, "loss": 0.5, "seconds": 1.0, "options": {}}
        return [{"phase": "test", "meters": meters, **common}]

    phases = {
        "off": {seed: log(0.5 + 0.01 * seed) for seed in range(len(differences))},
        "on": {seed: log(0.5 + 0.01 * seed + d) for seed, d in enumerate(differences)},
    }
    results = evaluated_logs(phases, len(differences), target)
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(json.dumps({**results, "failed": []}))


def summarized(*argv):
    return main(["compare-summary", *argv, "--output", "all.png"])


def test_it_prints_and_draws_every_difference(here, capsys):
    write("helps", [0.02, 0.021, 0.022])
    write("noise", [0.02, -0.02, 0.01])
    write("one", [0.01])
    assert summarized("helps", "noise", "one") == 0
    printed = capsys.readouterr().out
    header, off, on, *_ = printed.splitlines()
    assert re.split(r"  +", header) == [
        "test accuracy/top_1",
        "final",
        "best",
        "seconds",
        "epochs to target",
        "runs",
    ]
    assert re.match(r"helps: off +51.00 ± 1.00 % .* 3 of 3", off)
    assert re.match(r"helps: on +53.10 ± 1.10 % .* 3 of 3", on)
    assert "  helps: on: +2.10 points [+1.85, +2.35] (" in printed
    assert re.search(r"\n  helps: on: .* more than noise \(p = 0.00\d+\)\n", printed)
    assert re.search(r"\n  noise: on: .* cannot be told from noise\n", printed)
    assert re.search(r"\n  one: on: .* without a spread over seeds there is no test\n", printed)
    assert "are corrected for 2 comparisons (Holm)\n" in printed
    assert "gap:" not in printed  # no column has it
    assert printed.endswith("written to all.png\n")
    image = (imread("all.png")[..., :3] * 255).astype(int)
    for color in (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2):
        assert (abs(image - color).max(axis=-1) < 6).sum() > 50


def test_what_has_no_interval_is_open_and_what_has_no_results_is_named(here):
    write("one", [0.01])
    write("same", [0.01, 0.01])
    write("none", [math.nan, math.nan])
    write("some", [0.01, math.nan, 0.03])
    (axes,) = picture(summarize(read([Path(x) for x in ("one", "same", "none", "some")]), [])).axes
    _, one, same, interval, some = axes.lines
    assert [x.get_fillstyle() for x in (one, same, some)] == ["none", "none", "full"]
    assert one.get_xdata() == pytest.approx([1.0])  # points
    assert len(interval.get_xdata()) == 2
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "one: on against off"
    assert labels[2] == "some: on against off (2 of 3 runs)"
    assert len(labels) == 3
    assert "without results: none: on against off" in axes.get_xlabel()


def test_color_is_what_stands_after_holm_among_all(here):
    """Each has p = 0.04 alone; corrected for two, neither is significant."""
    differences = [0.01, 0.013, 0.019]
    for name in "ab":
        write(name, differences)
    alone = picture(summarize(read([Path("a")]), []))
    (scaled,) = json.loads(Path("b/results.json").read_text())["arms"][1:]
    assert 0.025 < scaled["holm_p"] < 0.05
    assert alone.axes[0].lines[-1].get_color() == COLORS[1]
    results = json.loads(Path("b/results.json").read_text())
    for run in results["arms"][0]["runs"]:  # otherwise it would hold the same results
        run["seconds"] += 1
    Path("b/results.json").write_text(json.dumps(results))
    together = picture(summarize(read([Path("a"), Path("b")]), []))
    assert {line.get_color() for line in together.axes[0].lines[1:]} == {COLORS[0]}


def test_units_do_not_depend_on_the_order_of_folders(here, capsys):
    write("shares", [0.01, 0.02])
    write("large", [1.0, 1.0])
    texts = []
    for folders in (("shares", "large"), ("large", "shares")):
        assert summarized(*folders) == 0
        texts.append(sorted(re.findall(r"shares: on.*", capsys.readouterr().out)))
    assert "points" not in texts[0][0]
    assert texts[0] == texts[1]


def test_never_reached_and_no_target_are_told_apart(here, capsys):
    write("none", [0.1, 0.2])
    write("never", [0.1, 0.2], target=Target("accuracy/top_1", 0.99))
    assert summarized("none", "never") == 0
    printed = capsys.readouterr().out
    assert re.search(r"none: on .* –  2 of 2\n", printed)
    assert re.search(r"never: on .* never \(0\)  2 of 2\n", printed)


def test_names_that_are_the_same_and_files_in_place_of_folders(here, capsys):
    for folder in ("x", "y"):
        Path(folder).mkdir()
        write("sgd", [0.01 + 0.01 * (folder == "y"), 0.02], folder=Path(folder))
    assert summarized("x/sgd/results.json", "y/sgd") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^x/sgd: on ", printed, re.M)
    assert re.search(r"^y/sgd: on ", printed, re.M)


def test_folders_with_and_without_a_meter_have_a_table_each(here, capsys):
    write("with", [0.01, 0.02])
    write("other", [0.01, 0.02], "top_5")
    assert summarized("with", "other") == 0
    printed = capsys.readouterr().out
    assert "final test accuracy/top_1" in printed
    assert "final test accuracy/top_5" in printed
    figure = picture(summarize(read([Path("with"), Path("other")]), [["with: off", "with: on"]]))
    assert len(figure.axes) == 2


def test_interactions_between_folders(here, capsys):
    """The gain at b is 0.02, 0.03 and 0.04 larger."""
    write("a", [0.01, 0.01, 0.01])
    write("b", [0.03, 0.04, 0.05])
    names = ["a: off", "a: on", "b: off", "b: on"]
    assert summarized("a", "b", "--contrast", *names) == 0
    printed = capsys.readouterr().out
    assert "gain of b: on over b: off, less that of a: on over a: off: +3.00 points" in printed
    p = stats.ttest_1samp([0.02, 0.03, 0.04], 0).pvalue
    (summary,) = summarize(read([Path("a"), Path("b")]), [names])
    assert summary["contrasts"][0]["difference"]["p"] == pytest.approx(p)


def test_an_interaction_leaves_out_a_seed_without_a_result(here):
    write("a", [0.01, 0.01, 0.01])
    write("b", [0.03, math.nan, 0.05])
    (summary,) = summarize(read([Path("a"), Path("b")]), [["a: off", "a: on", "b: off", "b: on"]])
    (contrast,) = summary["contrasts"]
    assert contrast["verdict"].startswith("+3.00 points")
    assert "over 2 seeds (2 of 3 pairs)" in contrast["verdict"]


def test_contrasts_are_corrected_on_their_own(here, capsys):
    write("a", [0.01, 0.013, 0.019])
    write("b", [0.02, 0.021, 0.022])
    (summary,) = summarize(read([Path("a"), Path("b")]), [["a: off", "a: on"]])
    (contrast,) = summary["contrasts"]
    assert contrast["holm_p"] == pytest.approx(contrast["difference"]["p"])
    assert summary["comparisons"] == 2
    assert summarized("a", "b", "--contrast", "a: off", "a: on") == 0
    assert "named by --contrast are corrected on their own" in capsys.readouterr().out


def test_names_are_text(here):
    write("cost_$_a$", [0.01, 0.02])
    assert summarized("cost_$_a$") == 0


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["nothing"], "nothing has no results.json of classy-gc compare"),
        (["a", "./a"], "hold the same results, and count twice"),
        (["a", "copy"], "a and copy hold the same results, and count twice"),
        (["a", "--output", "a.pdf"], "--output: must be the path of a .png file"),
        (["a", "--contrast", "a: on"], "--contrast must have two arms or four, not 1"),
        (["a", "b", "--contrast", "a: on", "b: on"], "a: on, b: on are compared by different"),
        (["a", "--contrast", "a: off", "a: onn"], "'a: onn' in --contrast, did you mean 'a: on'"),
    ],
)
def test_bad_input_is_one_line(folders, words, here, capsys):
    write("a", [0.1, 0.2])
    write("b", [0.1, 0.2], "top_5")
    shutil.copytree("a", "copy")
    with pytest.raises(SystemExit, match="2"):
        main(["compare-summary", *folders])
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not list(here.glob("*.png"))


@pytest.mark.parametrize(
    "content",
    [
        '{"headline": "x"}',
        '{"headline": "x", "seeds": 2, "arms": []}',
        '{"headline": ["x"], "seeds": 2, "arms": []}',
        '{"headline": "x", "seeds": 1, "arms": [{"name": "a", "baseline": null, "runs": [{}]}]}',
        '{"headline": "x", "seeds": 1, "arms": [{"name": "a", "baseline": null, "runs": [{"seed": '
        '0, "x": "y"}]}]}',
        "[" * 100_000,
    ],
)
def test_damaged_results_are_refused_by_the_name_of_their_file(content, here, capsys):
    write("a", [0.1, 0.2])
    Path("broken").mkdir()
    Path("broken/results.json").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        main(["compare-summary", "a", "broken"])
    assert "broken/results.json is not from classy-gc compare" in capsys.readouterr().err
