"""The flags of every command but ``compare``, and their types; nothing here imports torch."""

import argparse
import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from classy_gc.configuration.load import read_config
from classy_gc.files import check_folder, has_scheme
from classy_gc.options import check_installed

T = TypeVar("T")
Add = Callable[..., argparse.Action]  #: the ``add_argument`` of a parser


def flag_type(read: Callable[[str], T]) -> Callable[[str], T]:
    """The ``type=`` of a flag; argparse prints its errors unchanged.

    Args:
        read: reads the text.
    """

    @functools.wraps(read)
    def checked(text: str) -> T:
        try:
            return read(text)
        except (ValueError, OSError) as error:  # such as a name that is too long
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def integer(least: int, most: float = math.inf) -> Callable[[str], int]:
    """The type of an integer.

    Args:
        least: the smallest allowed integer.
        most: the largest (default: any).

    Example:
        >>> integer(1)("0")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be an integer >= 1, not 0
    """

    def read(text: str) -> int:
        value = int(text) if text.lstrip("+-").isdecimal() else text
        if isinstance(value, str) or not least <= value <= most:
            allowed = f">= {least}" if most == math.inf else f"from {least} to {most}"
            raise ValueError(f"must be an integer {allowed}, not {value!r}")
        return value

    return flag_type(read)


#: as in NumPy: https://numpy.org/doc/stable/reference/random/legacy.html, *RandomState*
seed = integer(0, 2**32 - 1)


def parse_values(text: str) -> list[Any]:
    """Reads JSON values between commas; a value that is not JSON is a string.

    Args:
        text: of the flag.

    Raises:
        ValueError: a value is empty, or a list, an object or a string is not JSON.

    Example:
        >>> parse_values("false,0.1,cosine,[0.9,0.99]")
        [False, 0.1, 'cosine', [0.9, 0.99]]
    """
    decoder, values, at = json.JSONDecoder(), [], 0
    while at <= len(text):
        try:
            value, end = decoder.raw_decode(text, at)
            if text[end : end + 1] not in ("", ","):
                raise ValueError
        except ValueError:
            end = text.find(",", at) if "," in text[at:] else len(text)
            value = text[at:end]
            if not value or value[0] in '[{"':
                raise ValueError(f"{text[at:]!r} is neither JSON nor a word") from None
        values.append(value)
        at = end + 1
    return values


def parse_settings(text: str) -> tuple[str, list[Any]]:
    """Reads a dotted key, and the values that it takes in turn.

    Args:
        text: ``KEY=VALUE,…``

    Raises:
        ValueError: no key, no value, or one that is neither JSON nor a word.

    Example:
        >>> parse_settings("optimizer.use_gc=false,true")
        ('optimizer.use_gc', [False, True])
    """
    key, equals, values = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} must be KEY=VALUE")
    try:
        return key, parse_values(values)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads a dotted key and its one value.

    Args:
        text: ``KEY=VALUE``

    Raises:
        ValueError: as in :func:`parse_settings`, or several values.

    Example:
        >>> parse_setting("optimizer.lr=0.2")
        ('optimizer.lr', 0.2)
    """
    key, values = parse_settings(text)
    if len(values) > 1:
        raise ValueError(f"{key} must have one value, not {len(values)}")
    return key, values[0]


setting = flag_type(parse_setting)


@flag_type
def config_file(text: str) -> str:
    """The path of a config that can be read, with its bases."""
    if "RANK" not in os.environ:  # one of several processes tells later what its disk has
        read_config(text)
    return text


@flag_type
def output_folder(text: str) -> str:
    """A local folder that can be created and written to; or nothing.

    Example:
        >>> output_folder("/dev/null/results")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: folder /dev/null/results: /dev/null is no writable folder ...
    """
    if "RANK" not in os.environ:  # one of several processes tells later what its disk has
        check_folder(Path(text), "folder")
    return text


def checkpoint_folder(text: str) -> str:
    """:func:`output_folder`, a path with a scheme, or nothing."""
    return text if not text or has_scheme(text) else output_folder(text)


def output_path(text: str) -> Path:
    """:func:`output_folder`, as a path."""
    return Path(output_folder(text))


@flag_type
def picture(text: str) -> str:
    """A ``.png`` file that can be written and, with matplotlib, drawn.

    Example:
        >>> picture("bars.pdf")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be the path of a .png file, not 'bars.pdf'
    """
    file = Path(text)
    if file.suffix != ".png" or file.is_dir():
        raise ValueError(f"must be the path of a .png file, not {text!r}")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise ValueError(f"{text}: there is no writable folder {file.parent}")
    check_installed("matplotlib", text)
    return text


def utf8(text: str) -> str:
    r"""The text of a name; letters that the locale lacks are read as UTF-8.

    Example:
        >>> utf8("caf\udcc3\udca9")
        'café'
    """
    return text.encode(errors="surrogateescape").decode(errors="replace")


class Target(NamedTuple):
    """The value of a test meter whose first epoch is reported."""

    meter: str
    value: float
    lower: bool = False  #: whether lower is better


@flag_type
def target(text: str) -> Target:
    """A meter and its value.

    Example:
        >>> target("accuracy/top_1=0.97")
        Target(meter='accuracy/top_1', value=0.97, lower=False)
    """
    meter, _, value = text.rpartition("=")
    name = meter.removesuffix("<").removesuffix(">")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        forms = "METER=NUMBER (accuracy/top_1=0.97), or METER<=NUMBER where lower is better"
        raise ValueError(f"{text!r} must be {forms}")
    return Target(name, number, meter.endswith("<"))


@flag_type
def seeds(text: str) -> range:
    """A number of seeds, or a range of them.

    Example:
        >>> seeds("3"), seeds("100-102")
        (range(0, 3), range(100, 103))
    """
    first, dash, last = text.partition("-")
    numbers = range(0)
    if first.isdecimal() and (last.isdecimal() or not dash):
        numbers = range(int(first), int(last) + 1) if dash else range(int(first))
    if not numbers or numbers[-1] >= 2**32:
        raise ValueError(f"{text!r} must be a number of seeds >= 1, or a range such as 100-102")
    return numbers


def add_config_flag(add: Add, help: str, **options: str) -> None:
    add("--config_file", type=config_file, required=True, help=help, **options)
    help = "a dotted key of the config (optimizer.use_gc) and its value, JSON or a word; repeatable"
    options = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    add("--set", type=setting, help=help, **options)


def add_picture_flag(add: Add, file: str) -> None:
    add("--output", type=picture, default=file, metavar="FILE", help=f"picture (default {file})")


def add_configs_flags(add: Add) -> None:
    """List, copy or print the shipped configs."""
    add("names", nargs="*", metavar="NAME", help="of those to copy here (default: list)")
    add("--flatten", action="store_true", help="print one, or a file, merged with its bases")


def add_param_groups_flags(add: Add) -> None:
    """Print the options of each parameter."""
    add_config_flag(add, "of any task")


def add_schedules_flags(add: Add) -> None:
    """Draw schedules, and print their values."""
    add_config_flag(add, "one or several", nargs="+")
    add_picture_flag(add, "schedules.png")


def add_bench_flags(add: Add) -> None:
    """Time the optimizers beside torch's own, or whole training steps of a config."""
    # Flags that --config_file sets get their defaults later, to tell them from given ones.
    add("--model", help="of torchvision.models or Classy Vision, or tiny (default resnet50)")
    add("--device", choices=["cpu", "cuda"], help="(default cpu)")
    add("--dtype", choices=["float32", "float64", "bfloat16"], help="of weights (default float32)")
    help = "sgd, adam, adamw, radam, plain_radam, rmsprop, rmsprop_tf, or paths of classes such as "
    help += "torch.optim.NAdam (default: all of these names)"
    add("--optimizers", nargs="+", metavar="NAME", help=help)
    add("--config_file", type=config_file, help="measures GC's share of its training steps")
    add("--threads", type=integer(1), help="of torch (default: torch's choice)")
    add("--steps", type=integer(1), default=30, help="measured rounds (default 30)")
    # torch's RAdam and ours compute differently until step 6.
    add("--warmup", type=integer(6), default=10, help="rounds before (default 10)")
    add("--output_folder", type=output_path, help="(default: output_bench_TIME here)")


def add_polygonize_flags(add: Add) -> None:
    """Turn a map of buildings into polygons with straight walls."""
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


def add_inspect_flags(add: Add) -> None:
    """Print what GC does, or would do, to each gradient of a config, over a few batches."""
    add_config_flag(add, "of a classification task")
    add("--batches", type=integer(1), default=8, help="the mean is over these (default 8)")
    add_picture_flag(add, "inspect.png")
    add("--checkpoint_load_path", default="", help="to start from (default: none)")
    add("--pretrained_checkpoint_path", default="", help="of a fine_tuning task (default: none)")
    add("--seed", type=seed, default=0, help="of the weights and the order of data (default 0)")


def add_train_flags(add: Add) -> None:
    """Train a Classy Vision config."""
    add_config_flag(add, "a Classy Vision config")
    add("--distributed_backend", choices=["none", "ddp"], default="none", help="(default none)")
    add("--visdom_port", type=integer(1), default=8097, help="of that server (default 8097)")
    add("--checkpoint_load_path", default="", help="a checkpoint to resume from, or its folder")
    add("--pretrained_checkpoint_path", default="", help="a checkpoint to fine-tune, or its folder")
    add("--show_progress", action="store_true", help="show a progress bar")
    add("--skip_tensorboard", action="store_true", help="write no TensorBoard logs")
    add("--visdom_server", default="", help="server of Visdom (default: none)")
    add("--profiler", action="store_true", help="profile training")
    add("--debug", action="store_true", help="show tracebacks, and stop in the debugger")
    add("--ignore_checkpoint_config", action="store_true", help="allow another config's checkpoint")
    add("--image_backend", default="PIL", help="of torchvision: PIL or accimage (default PIL)")
    add("--video_backend", default="pyav", help="of torchvision: pyav (default) or video_reader")
    # classy_train.py's 5 and 1 are set later: with a progress bar nothing is logged, and a hook of
    # the config wins.
    add("--log_freq", type=integer(1), help="steps between two lines of the log (default 5)")
    add("--checkpoint_period", type=integer(1), help="epochs between two (default 1)")
    add("--seed", type=seed, default=0, help="of all random numbers (default 0)")
    help = "of the log, curves and checkpoints (default: output_TIME in the current folder)"
    add("--output_folder", type=output_folder, default="", help=help)
    help = "of checkpoints (default: checkpoints in the output folder)"
    add("--checkpoint_folder", type=checkpoint_folder, default="", help=help)
