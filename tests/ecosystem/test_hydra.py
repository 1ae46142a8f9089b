import copy
import shutil
from pathlib import Path

import hydra
import pytest
import torch
import yaml
from hydra.utils import instantiate

from classy_gc import core
from tests import forked

from .digits import network, row_means, train

REPOSITORY = Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in (REPOSITORY / "configs" / "hydra").glob("*.yaml")}
CLASSES = {
    "adam": core.Adam,
    "adamw": core.AdamW,
    "radam": core.RAdam,
    "plain_radam": core.PlainRAdam,
    "sgd": core.SGD,
}
APP = """
import hydra
import torch

@hydra.main(config_path="conf", config_name="config", version_base=None)
def main(config):
    model = torch.nn.Linear(4, 2)
    optimizer = hydra.utils.instantiate(config.optimizer)(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), "optimizer.pt")
    group = torch.load("optimizer.pt", weights_only=True)["param_groups"][0]
    print(type(optimizer).__name__, group["lr"], group["use_gc"], group.get("betas"))

main()
"""


def composed(name, overrides=()):
    with hydra.initialize_config_dir(str(CONFIGS[name].parent), version_base=None):
        return hydra.compose(name, list(overrides))


def test_there_is_one_for_each():
    assert CONFIGS.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_config_trains_and_its_state_is_plain_data(tmp_path, name):
    model = network()
    optimizer = instantiate(composed(name))(model.parameters())
    assert type(optimizer) is CLASSES[name]
    options = yaml.safe_load(CONFIGS[name].read_text())
    del options["_target_"], options["_partial_"]
    group = optimizer.param_groups[0]
    assert options["use_gc"] is group["use_gc"] is True
    if "betas" in options:
        assert type(group["betas"]) is tuple
        options["betas"] = tuple(options["betas"])
    assert {key: group[key] for key in options} == options

    before = copy.deepcopy(model)
    train(model, optimizer)
    for i in (0, 4):
        assert not torch.equal(model[i].weight, before[i].weight)
        if name != "adamw":  # whose decay is not centralized
            torch.testing.assert_close(row_means(model[i].weight), row_means(before[i].weight))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    state = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    again = CLASSES[name](network().parameters())
    again.load_state_dict(state)
    assert {key: again.param_groups[0][key] for key in options} == options


def test_an_application_of_hydras(tmp_path):
    """The configs as the group ``optimizer`` of an application, chosen on its command line."""
    shutil.copytree(REPOSITORY / "configs" / "hydra", tmp_path / "conf" / "optimizer")
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [{optimizer: adam}]\n")
    (tmp_path / "app.py").write_text(APP)
    code = "import runpy; runpy.run_path('app.py', run_name='__main__')"
    flags = ("optimizer=adamw", "optimizer.lr=0.5")
    result = forked.run(forked.code, code, *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "AdamW 0.5 True (0.9, 0.999)\n"
