"""Keys and values that hooks refuse."""

import math

import pytest
from classy_vision.hooks import build_hook

import classy_gc  # noqa: F401  registers the hooks


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("clip_grad_value", {}, "missing key 'value' in hook 'clip_grad_value'"),
        ("clip_grad_value", {"valu": 1}, "unknown key 'valu' .* did you mean 'value'"),
        ("clip_grad_value", {"value": 0}, "value must be a number > 0, not 0"),
        ("clip_grad_value", {"value": "1"}, "value must be a number > 0, not '1'"),
        ("clip_grad_value", {"value": math.nan}, "value must be a number > 0, not nan"),
        ("gc_monitor", {"interval": 0}, "interval must be an integer > 0, not 0"),
        ("gc_monitor", {"interval": 2.5}, "interval must be an integer > 0, not 2.5"),
        ("gc_monitor", {"interval": True}, "interval must be an integer > 0, not True"),
        ("json_log", {"foldr": "."}, "unknown key 'foldr' .* did you mean 'folder'"),
        ("json_log", {"folder": "s3://a"}, "folder must be a local path, not 's3://a'"),
        ("json_log", {"folder": 1}, "hook 'json_log': folder must be a local path, not 1"),
        ("phase_seed", {"sed": 1}, "unknown key 'sed'"),
        ("phase_seed", {"seed": -1}, "seed must be an integer >= 0, not -1"),
        ("phase_seed", {"seed": "1"}, "seed must be an integer >= 0, not '1'"),
        ("predictions", {"folder": "."}, "unknown key 'folder' in hook 'predictions'"),
        ("provenance", {"folder": "."}, "unknown key 'folder' in hook 'provenance'"),
        ("rolling_checkpoint", {"input_args": {}}, "unknown key 'input_args'"),
        ("rolling_checkpoint", {"folder": 1}, "folder must be a path or null, not 1"),
        ("rolling_checkpoint", {"interval": 0}, "interval must be an integer > 0, not 0"),
        ("rolling_checkpoint", {"interval": 0.5}, "interval must be an integer > 0, not 0.5"),
        ("rolling_checkpoint", {"max_keep": 0}, "max_keep must be an integer > 0 or null, not 0"),
        ("rolling_checkpoint", {"save_optimizer": 1}, "must be true or false, not 1"),
        ("rolling_checkpoint", {"save_best": True}, "save_best must be a name or null, not True"),
        ("training_curves", {"folder": None}, "folder must be a local path, not None"),
        ("training_curves", {"title": 3}, "title must be a string, not 3"),
    ],
)
def test_refused(name, config, message):
    with pytest.raises(ValueError, match=message):
        build_hook({"name": name, **config})
