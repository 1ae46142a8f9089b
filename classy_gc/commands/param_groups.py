"""``classy-gc param-groups``: which parameter of a config gets which options."""

import argparse

from classy_gc.configuration import build, errors, load
from classy_gc.param_groups.tables import param_group_table

# Stands in for the data of the config, which may be missing.
_NO_DATA = {"name": "synthetic_image", "crop_size": 1, "class_ratio": 0.5, "num_samples": 1}
_NO_DATA |= {"seed": 0, "batchsize_per_replica": 1, "use_shuffle": False, "transforms": []}


def run(args: argparse.Namespace) -> int:
    """Prints one row per parameter, and trains nothing; the data may be missing.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    config = args.config = load.load_config(args.config_file, args.set)
    train = dict(_NO_DATA)
    train["phases_per_epoch"] = config["dataset"].get("train", {}).get("phases_per_epoch", 1)
    config |= {"dataset": {"train": train}, "test_only": False, "hooks": []}
    config |= {"use_gpu": False, "amp_args": None}
    with errors.section():
        print(param_group_table(build.build_task(config)))
    return 0
