"""The flags of ``compare`` and ``compare-summary``; nothing here imports torch."""

from pathlib import Path
from typing import Any

from classy_gc.commands import flags


def _add_contrast_flag(add: flags.Add, arm: str) -> None:
    help = f"compare the second {arm} with the first; of four, their gains; repeatable"
    options: dict[str, Any] = {"type": flags.utf8, "action": "append", "default": []}
    add("--contrast", nargs="+", metavar="ARM", help=help, **options)


def add_compare_summary_flags(add: flags.Add) -> None:
    """Draw the differences of several comparisons as one picture."""
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="of a comparison")
    _add_contrast_flag(add, "'FOLDER: ARM'")
    flags.add_picture_flag(add, "summary.png")


def add_compare_flags(add: flags.Add) -> None:
    """Train a config several ways, with the same seeds, and tell differences from noise.

    After an interruption, the same command continues.
    """
    flags.add_config_flag(add, "Classy Vision configs", nargs="+", metavar="FILE")
    repeatable: dict[str, Any] = {"action": "append", "default": []}
    varied = flags.flag_type(lambda text: flags.parse_settings(flags.utf8(text)))
    help = "a dotted key (model.heads.0.num_classes) and its values, JSON or words; repeatable"
    add("--vary", type=varied, metavar="KEY=VALUE,…", help=help, **repeatable)
    help = "a name and the keys that are set together for it; repeatable"
    add("--arm", type=flags.utf8, nargs="+", metavar=("NAME", "KEY=VALUE"), help=help, **repeatable)
    help = "a key of --vary: compare only arms that differ in it alone"
    add("--effect_of", metavar="KEY", help=help)
    help = "train with 0 … N-1, or with a range such as 100-102 (default 5)"
    add("--seeds", type=flags.seeds, default=range(5), metavar="N", help=help)
    help = "train every arm at these values, and find the best by validation images"
    add("--sweep", metavar="KEY=LOW:HIGH:COUNT", help=help)
    help = "then compare the best value of each arm on the test images, with these fresh seeds"
    add("--confirm", type=flags.seeds, metavar="SEEDS", help=help)
    help = "of the runs and the results"
    add("--output_folder", type=flags.output_path, required=True, help=help)
    help = "compare by this test meter, and count epochs until it has this value; or METER<=VALUE"
    add("--target", type=flags.target, metavar="METER=VALUE", help=help)
    help = "say how many seeds a difference of this size needs (percentage points of an accuracy)"
    add("--power", type=float, metavar="POINTS", help=help)
    _add_contrast_flag(add, "of two arms")
    help = "runs at a time, with one thread each if several (default: one per core; 1 with CUDA)"
    add("--jobs", type=flags.integer(1), help=help)
    help = "where runs are trained: on this machine, or as jobs of Slurm (default local)"
    add("--cluster", choices=["local", "slurm"], default="local", help=help)
    for key, help in (("partition", "of each job"), ("time", "of each job, in minutes")):
        own: dict[str, Any] = {"type": lambda text, key=key: flags.setting(f"{key}={text}")}
        add(f"--slurm_{key}", dest="slurm", metavar=key.upper(), help=help, **repeatable, **own)
    help = "of submitit's SlurmExecutor, such as gpus_per_node=1; repeatable"
    add("--slurm", type=flags.setting, metavar="KEY=VALUE", help=help, **repeatable)
