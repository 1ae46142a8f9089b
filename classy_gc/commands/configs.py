"""``classy-gc configs``: lists the configs that the package ships, and copies them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classy_gc.commands.checks import check_output_folder
from classy_gc.commands.parser import command_parser
from classy_gc.configuration.shipped import shipped_configs
from classy_gc.options import check_known
from classy_gc.table import aligned


def _about(path: Path) -> str:
    """What a config trains, by the names in it."""
    config: Any = json.loads(path.read_text(encoding="utf-8"))
    optimizer = config.get("optimizer", {}).get("name", "tests only")
    data = next(iter(config["dataset"].values()))["name"]
    return f"{optimizer}, {config['model']['name']} on {data}"


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line a config, or copies some.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0. Bad input exits with code 2 and one line on stderr, before anything is copied.
    """
    parser = command_parser("configs")
    args = parser.parse_args(argv)
    folder = shipped_configs()
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.json"))}
    files = {name: path for name, path in files.items() if "results" not in path.parts}
    if not args.names and args.output_folder:
        parser.error("--output_folder needs the NAME of a config to copy there")
    if not args.names:
        print(aligned((name, _about(path)) for name, path in files.items()))
        print("classy-gc train --config_file NAME trains one, classy-gc configs NAME copies it")
        return 0
    try:
        check_known(args.names, files, "the shipped configs", "config")
        output = args.output_folder or Path()
        check_output_folder(output)
        copies = {files[name]: output / Path(name).name for name in args.names}
        for copy in copies.values():
            if copy.exists():
                raise ValueError(f"{copy} is there already")
        if len(set(copies.values())) < len(copies):
            raise ValueError("two of these have one name")
        output.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for path, copy in copies.items():
        shutil.copyfile(path, copy)
        print(copy)
    return 0
