"""The flags of every command but ``compare``; nothing here imports torch."""

from __future__ import annotations

import argparse

from classy_gc.commands.flag_types import (
    config_file,
    integer,
    output_folder,
    output_path,
    picture,
    seed,
    setting,
)

#: names of ``--optimizers`` of bench
ALGORITHMS = ("sgd", "adam", "adamw", "radam", "plain_radam", "rmsprop", "rmsprop_tf")
DTYPES = ("float32", "float64", "bfloat16")

#: of bench: torch's RAdam and ours compute differently until step 6
MIN_WARMUP = 6

#: the flags of ``classy_train.py``: name, default, help
_STOCK_FLAGS = (
    ("checkpoint_folder", "", "of checkpoints (default: checkpoints in the output folder)"),
    ("checkpoint_load_path", "", "a checkpoint to resume from, or its folder"),
    ("pretrained_checkpoint_path", "", "a checkpoint to fine-tune from, or its folder"),
    ("show_progress", False, "show a progress bar"),
    ("skip_tensorboard", False, "write no TensorBoard logs"),
    ("visdom_server", "", "server of Visdom (default: none)"),
    ("profiler", False, "profile training"),
    ("debug", False, "show tracebacks, and stop in the debugger"),
    ("ignore_checkpoint_config", False, "allow a checkpoint of another config"),
    ("image_backend", "PIL", "of torchvision: PIL or accimage (default PIL)"),
    ("video_backend", "pyav", "of torchvision: pyav or video_reader (default pyav)"),
)


def add_config_flag(parser: argparse.ArgumentParser, help: str, **options: str) -> None:
    parser.add_argument("--config_file", type=config_file, required=True, help=help, **options)
    help = "a dotted key of the config (optimizer.lr) and its value, JSON or a word; repeatable"
    options = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    parser.add_argument("--set", type=setting, help=help, **options)


def add_picture_flag(parser: argparse.ArgumentParser, file: str) -> None:
    help = "the picture (default %(default)s)"
    parser.add_argument("--output", type=picture, default=file, metavar="FILE", help=help)


def add_configs_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="of those to copy (default: list)")
    add("--output_folder", type=output_path, help="to copy into (default: the current one)")
    add("--flatten", action="store_true", help="print one, or a file, merged with its bases")


def add_param_groups_flags(parser: argparse.ArgumentParser) -> None:
    add_config_flag(parser, "of any task")


def add_schedules_flags(parser: argparse.ArgumentParser) -> None:
    add_config_flag(parser, "one or several", nargs="+")
    add_picture_flag(parser, "schedules.png")


def add_bench_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    # Flags that --config_file sets get their defaults later, to tell them from given ones.
    add("--model", help="of torchvision.models or Classy Vision, or tiny (default resnet50)")
    add("--device", choices=["cpu", "cuda"], help="(default cpu)")
    add("--dtype", choices=DTYPES, help="of the weights (default float32)")
    help = f"of {', '.join(ALGORITHMS)} (default all), or the paths of classes (torch.optim.NAdam)"
    add("--optimizers", nargs="+", metavar="NAME", help=help)
    add("--config_file", type=config_file, help="measures GC's share of its training steps")
    add("--threads", type=integer(1), help="of torch (default: torch's choice)")
    add("--steps", type=integer(1), default=30, help="measured rounds (default 30)")
    add("--warmup", type=integer(MIN_WARMUP), default=10, help="rounds before (default 10)")
    add("--output_folder", type=output_path, help="(default: output_bench_TIME here)")


def add_polygonize_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("map", help="probability of a building: GeoTIFF, grey PNG (0–255), .npy or .npz in [0, 1]")
    add("--output", required=True, help=".geojson, .gpkg, .shp, .fgb or .parquet of the polygons")
    add("--band", type=int, help="of MAP, from 1 (default: the only one)")
    add("--edges", help="as MAP: probability of a wall; separates buildings")
    add("--frame_field", help=".npz with c0 and c2, or four channels (default: from the map)")
    help = "skeleton has common walls, and reads --edges (default: skeleton with edges)"
    add("--method", choices=("contours", "skeleton"), help=help)
    add("--threshold", type=float, default=0.5, help="probability on outlines (default 0.5)")
    add("--tolerance", default="1", help="of simplification, px, or metres as 0.5m (default 1)")
    add("--min_area", default="10", help="of rings, px², or square metres as 9m (default 10)")
    add("--steps", type=integer(0), help="of the optimizer (default: contours 100, skeleton 300)")
    add("--picture", type=picture, help=".png of the map and the polygons, before and after")
    add("--truth", help="true polygons; prints how near the found ones are")
    add("--tile", type=int, default=2048, help="edge of a larger map's tiles, px (default 2048)")
    add("--device", default="cpu", help="of torch, to refine on (default cpu)")


def add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_config_flag(parser, "of a classification task")
    add("--batches", type=integer(1), default=8, help="the mean is over these (default 8)")
    add_picture_flag(parser, "inspect.png")
    add("--checkpoint_load_path", default="", help="to start from (default: none)")
    add("--pretrained_checkpoint_path", default="", help="of a fine_tuning task (default: none)")
    add("--seed", type=seed, default=0, help="of the weights and the order of data (default 0)")


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_config_flag(parser, "a Classy Vision config")
    add("--distributed_backend", choices=["none", "ddp"], default="none", help="(default none)")
    add("--visdom_port", type=integer(1), default=8097, help="of that server (default 8097)")
    for name, default, help in _STOCK_FLAGS:
        if default is False:
            add(f"--{name}", action="store_true", help=help)
        else:
            add(f"--{name}", default=default, help=help)
    # classy_train.py's 5 and 1 are set later: with a progress bar nothing is logged, and a hook of
    # the config wins.
    add("--log_freq", type=integer(1), help="steps between two lines of the log (default 5)")
    add("--checkpoint_period", type=integer(1), help="epochs between two (default 1)")
    add("--seed", type=seed, default=0, help="of all random numbers (default 0)")
    help = "of the log, curves and checkpoints (default: output_TIME in the current folder)"
    add("--output_folder", type=output_folder, default="", help=help)
