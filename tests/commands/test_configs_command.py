import json
from pathlib import Path

import pytest

from classy_gc.commands import main

CONFIGS = Path(__file__).parents[2] / "configs"


def test_it_lists_every_config(capsys):
    assert main(["configs"]) == 0
    *listed, last = capsys.readouterr().out.splitlines()
    files = {
        str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.json") if "results" not in p.parts
    }
    assert set(listed) == files
    assert "classy-gc configs NAME copies it" in last


def test_it_copies(here, capsys):
    names = ["digits_sgd_gc.json", "recipes/logs.json"]
    assert main(["configs", *names]) == 0
    for name in names:
        copy = here / Path(name).name
        assert copy.read_bytes() == (CONFIGS / name).read_bytes()
    assert capsys.readouterr().out.split("\n")[0] == "digits_sgd_gc.json"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["digits_sgd.json"], "did you mean 'digits_sgd_gc.json'?"),
        (["digits_sgd_gc.json", "there.json"], "unknown config 'there.json'"),
        (["digits_sgd_gc.json", "digits_adam_gc.json"], "digits_adam_gc.json already exists"),
    ],
)
def test_bad_names_copy_nothing(names, words, here, capsys):
    (here / "digits_adam_gc.json").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        main(["configs", *names])
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in here.iterdir()] == ["digits_adam_gc.json"]


@pytest.mark.parametrize("name", ["digits_sgd_gc.json", "configs/digits_sgd_gc.json"])
def test_a_shipped_config_is_found_by_its_name(name, here, capsys):
    assert main(["param-groups", "--config_file", name]) == 0
    shipped = capsys.readouterr().out
    assert "weight" in shipped
    own = json.loads((CONFIGS / "digits_sgd_gc.json").read_text())
    own["model"]["init_planes"] = 8
    own["model"]["heads"][0]["in_plane"] = 16
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(json.dumps(own))  # a file of one's own comes first
    assert main(["param-groups", "--config_file", name]) == 0
    assert capsys.readouterr().out != shipped
