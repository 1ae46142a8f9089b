import json
import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from classy_gc.commands import main
from classy_gc.commands.compare.results import evaluate


def write(name, differences, meter="top_1", folder=Path()):
    """The results of a comparison whose arms differ so, seed by seed."""

    def log(accuracy):
        meters = {"accuracy": {meter: accuracy}}
        common = {"epoch": 1.0, "loss": 0.5, "seconds": 1.0, "options": {}}
        return [{"phase": "test", "meters": meters, **common}]

    phases = {
        "off": {seed: log(0.5 + 0.01 * seed) for seed in range(len(differences))},
        "on": {seed: log(0.5 + 0.01 * seed + d) for seed, d in enumerate(differences)},
    }
    results = evaluate(dict.fromkeys(phases, "off"), phases, len(differences))
    (folder / name).mkdir()
    (folder / name / "results.json").write_text(json.dumps({**results, "failed": []}))


def test_it_prints_and_draws_every_difference(here, capsys):
    write("helps", [0.02, 0.021, 0.022])
    write("noise", [0.02, -0.02, 0.01])
    write("one", [0.01])
    assert main(["compare-summary", "helps", "noise", "one", "--output", "all.png"]) == 0
    printed = capsys.readouterr().out
    _, off, first, _, second, _, third, _, together, last = printed.splitlines()
    assert re.match(r"helps +off +51.00 ± 1.00 % +– +– +– +the baseline", off)
    assert re.match(r"helps +on +53.10 ± 1.10 % +– +– +– +\+2.10 points \[\+1.85, \+2.35\]", first)
    assert "more than noise" in first
    assert "cannot be told from noise" in second
    assert "one pair has no interval" in third
    assert re.search(r"all 2 differences together, p after Holm: helps \(on\) 0.00\d+$", together)
    assert last == "written to all.png"
    image = (imread("all.png")[..., :3] * 255).astype(int)
    for color, seen in ((0xD5, 0x5E, 0x00), True), ((0x00, 0x72, 0xB2), True):
        assert ((abs(image - color).max(axis=-1) < 6).sum() > 50) == seen


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["nothing"], "nothing has no results.json of classy-gc compare"),
        (["a", "./a"], "a is given twice"),
        (["broken"], "broken/results.json is not of classy-gc compare"),
        (["a", "b"], "the comparisons are of different meters (a: final test accuracy/top_1, b: "),
        (["a", "--output", "a.pdf"], "--output must be the path of a .png file"),
    ],
)
def test_bad_input_is_one_line(folders, words, here, capsys):
    write("a", [0.1, 0.2])
    write("b", [0.1, 0.2], "top_5")
    Path("broken").mkdir()
    Path("broken/results.json").write_text('{"headline": "x"}')
    with pytest.raises(SystemExit, match="2"):
        main(["compare-summary", *folders])
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not list(here.glob("*.png"))
