"""The flags of ``compare`` and ``compare-summary``; nothing here imports torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from classy_gc.commands.flag_types import integer, output_path, seeds, setting, target, utf8
from classy_gc.commands.flags import add_config_flag, add_picture_flag


def _contrast(parser: argparse.ArgumentParser) -> None:
    help = (
        "also compare the second of two arms with the first; of four arms, whether the fourth "
        "gains more over the third than the second over the first; repeatable. In a summary an "
        "arm is 'FOLDER: ARM'"
    )
    parser.add_argument(
        "--contrast", type=utf8, action="append", nargs="+", default=[], metavar="ARM", help=help
    )


def add_compare_summary_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a comparison")
    _contrast(parser)
    add_picture_flag(parser, "summary.png")


def add_compare_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_config_flag(parser, "Classy Vision configs", nargs="+", metavar="FILE")
    repeatable: dict[str, Any] = {"action": "append", "default": []}
    help = "a dotted key, as model.heads.0.num_classes, and its values, JSON or words; repeatable"
    add("--vary", type=utf8, metavar="KEY=VALUE,…", help=help, **repeatable)
    help = "a name and the keys that are set together for it; repeatable"
    add("--arm", type=utf8, nargs="+", metavar=("NAME", "KEY=VALUE"), help=help, **repeatable)
    first = "not all with the first of their config file"
    help = f"a key of --vary: compare only arms that differ in it alone, {first}"
    add("--effect_of", metavar="KEY", help=help)
    help = "train with 0 … N-1, or with a range such as 100-102 (default 5)"
    add("--seeds", type=seeds, default=range(5), metavar="N", help=help)
    help = (
        "train every arm at so many values of a key, each the same number of times the one before, "
        "and find the best by validation images (num_validation of the dataset); of a schedule "
        "the whole curve is scaled"
    )
    add("--sweep", metavar="KEY=LOW:HIGH:COUNT", help=help)
    fresh = "then train with these fresh seeds at the best value of each arm"
    add("--confirm", type=seeds, metavar="SEEDS", help=f"{fresh}, and compare on the test images")
    add("--output_folder", type=output_path, required=True, help="of the runs and the results")
    help = (
        "also count the epochs until a test meter, which is then the one that is compared, has "
        "this value, such as accuracy/top_1=0.97; METER<=VALUE where lower is better"
    )
    add("--target", type=target, metavar="METER=VALUE", help=help)
    help = (
        "also say how many seeds a difference of this size would need, in percentage points of an "
        "accuracy, else in the unit of what is compared"
    )
    add("--power", type=float, metavar="POINTS", help=help)
    _contrast(parser)
    help = (
        "runs at a time, each with one torch thread if there are several (default: one per core; 1 "
        "where torch finds CUDA; on a cluster as many as it has room for)"
    )
    add("--jobs", type=integer(1), help=help)
    help = "where runs are trained: on this machine, or as jobs of Slurm (default local)"
    add("--cluster", choices=["local", "slurm"], default="local", help=help)
    for key, help in (("partition", "of each job"), ("time", "of each job, in minutes")):
        own: dict[str, Any] = {"type": lambda text, key=key: setting(f"{key}={text}")}
        add(f"--slurm_{key}", dest="slurm", metavar=key.upper(), help=help, **repeatable, **own)
    help = "of submitit's SlurmExecutor, such as gpus_per_node=1; repeatable"
    add("--slurm", type=setting, metavar="KEY=VALUE", help=help, **repeatable)
