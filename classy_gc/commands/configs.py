"""``classy-gc configs``: lists, copies and flattens the configs that the package ships."""

import argparse
import shutil
from pathlib import Path

from classy_gc.configuration.load import dumps, read_config, shipped_configs
from classy_gc.options import check_known


def run(args: argparse.Namespace) -> int:
    """Prints one line per config, or copies some, or prints one merged with its bases.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr, before anything is copied.
    """
    if args.flatten:
        if len(args.names) != 1:
            raise ValueError("--flatten needs one NAME, or the path of a file, and prints it")
        print(dumps(read_config(args.names[0])), end="")
        return 0
    folder = shipped_configs()
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.json"))}
    files = {name: path for name, path in files.items() if "results" not in path.parts}
    if not args.names:
        print(*files, sep="\n")
        print("classy-gc train --config_file NAME trains one, classy-gc configs NAME copies it")
        return 0
    check_known(args.names, files, "the shipped configs", "config")
    copies = {files[name]: Path(Path(name).name) for name in args.names}
    for copy in copies.values():
        if copy.exists():
            raise ValueError(f"{copy} already exists")
    if len(set(copies.values())) < len(copies):
        raise ValueError("two of these have the same name")
    for path, copy in copies.items():
        shutil.copyfile(path, copy)
        print(copy)
    return 0
