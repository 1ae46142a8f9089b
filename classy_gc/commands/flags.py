"""The flags of every command; nothing here imports torch unless ``train`` is meant."""

from __future__ import annotations

import argparse
from pathlib import Path

from classy_gc.configuration.settings import Setting, parse_setting

#: names of ``--optimizers`` of bench
ALGORITHMS = ("sgd", "adam", "adamw", "radam", "plain_radam", "rmsprop", "rmsprop_tf")
DTYPES = ("float32", "float64", "bfloat16")

#: of bench: torch's RAdam and ours take another path until step 6
MIN_WARMUP = 6


def add_config_flag(parser: argparse.ArgumentParser, help: str, **options: str) -> None:
    parser.add_argument("--config_file", required=True, help=help, **options)
    _set(parser)


def _setting(text: str) -> Setting:
    try:
        return parse_setting(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a dotted key of the config (optimizer.lr) and its value, JSON or a word; can be "
        "repeated",
    )


def add_picture_flag(parser: argparse.ArgumentParser, file: str) -> None:
    parser.add_argument(
        "--output", default=file, metavar="FILE", help="the picture (default %(default)s)"
    )


def _seed(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument("--seed", type=int, default=0, help=f"of {of} (default 0)")


def add_configs_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="of those to copy (default: list)")
    parser.add_argument(
        "--output_folder", type=Path, help="to copy into (default: the current one)"
    )


def add_param_groups_flags(parser: argparse.ArgumentParser) -> None:
    add_config_flag(parser, "of any task")


def add_schedules_flags(parser: argparse.ArgumentParser) -> None:
    add_config_flag(parser, "one or several", nargs="+")
    add_picture_flag(parser, "schedules.png")


def add_bench_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    # The defaults of what --config_file says are filled in later, to tell them from given.
    add(
        "--model",
        help="of torchvision.models or Classy Vision, or tiny: 1,000 tensors of 8×8 "
        "(default resnet50)",
    )
    add("--device", choices=["cpu", "cuda"], help="(default cpu)")
    add("--dtype", choices=DTYPES, help="of the weights (default float32)")
    add(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join(ALGORITHMS)} (default all), or the path of any class, such as "
        "torch.optim.NAdam or pytorch_optimizer.Lion",
    )
    add(
        "--config_file",
        help="a Classy Vision config, of whose training steps to measure GC's share",
    )
    add("--threads", type=int, help="of torch (default: torch's choice)")
    add("--steps", type=int, default=30, help="measured rounds (default 30)")
    add(
        "--warmup",
        type=int,
        default=10,
        help=f"rounds before those, at least {MIN_WARMUP} (default 10)",
    )
    add("--output_folder", type=Path, help="(default output_bench_TIME in the current folder)")


def add_polygonize_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "map",
        help="GeoTIFF of one band, grey PNG (0–255), .npy or .npz in [0, 1]: probability of a "
        "building",
    )
    parser.add_argument(
        "--output",
        required=True,
        help="polygons: .geojson, .gpkg, .shp or .fgb, in the CRS of a GeoTIFF, else in pixels (x "
        "right, y down)",
    )
    parser.add_argument("--band", type=int, help="of MAP, from 1 (default: the only one)")
    parser.add_argument("--edges", help="as MAP: probability of a wall; separates buildings")
    parser.add_argument(
        "--frame_field",
        help=".npz with c0 and c2, or with four channels (default: what the map suggests)",
    )
    parser.add_argument(
        "--method",
        choices=("contours", "skeleton"),
        help="skeleton has common walls, and reads --edges (default: skeleton where there are "
        "edges, else contours)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="probability on outlines (default 0.5)"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1.0, help="of the simplification, px (default 1)"
    )
    parser.add_argument(
        "--min_area", type=float, default=10.0, help="of buildings and courtyards, px² (default 10)"
    )
    parser.add_argument(
        "--steps", type=int, help="of the optimizer (default: contours 200, skeleton 300)"
    )
    parser.add_argument("--picture", help=".png of the map and the polygons, before and after")
    parser.add_argument("--truth", help="true polygons; prints how near the found ones are")
    parser.add_argument(
        "--tile",
        type=int,
        default=2048,
        help="edge of the tiles of a larger map, px (default 2048)",
    )
    parser.add_argument("--device", default="cpu", help="of torch, to refine on (default cpu)")


def add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    add_config_flag(parser, "of a classification task")
    parser.add_argument(
        "--batches", type=int, default=8, help="the mean is over these (default 8; > 0)"
    )
    parser.add_argument("--output", default="inspect.png", help="the picture (default %(default)s)")
    parser.add_argument("--checkpoint_load_path", default="", help="to start from (default: none)")
    parser.add_argument(
        "--pretrained_checkpoint_path", default="", help="of a fine_tuning task (default: none)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the weights and the order of the data (default 0)"
    )


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    # Which imports torch, as nothing else here does.
    from classy_vision.generic.opts import add_generic_args

    add_generic_args(parser)
    _set(parser)
    parser.add_argument(
        "--seed",
        default=0,
        type=int,
        help="""of the weights, the order of the data, augmentation and dropout: the same seed
             on the same machine gives the same weights, bit for bit (default 0)""",
    )
    parser.add_argument(
        "--output_folder",
        default="",
        help="""of log.jsonl, curves.png, tensorboard/ and checkpoints/, unless
             --checkpoint_folder names another (default: output_TIME in the current folder)""",
    )
    # classy_train.py's 5 and 1, once it is known that nobody gave them; no text tears a bar.
    parser.set_defaults(log_freq=None, checkpoint_period=None)
