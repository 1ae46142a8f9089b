import os
import subprocess
import sys

import pytest

from classy_gc.commands import main

LONG = "x" * 300
RUN = """
import sys
from classy_gc.commands import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    print(error.code, {"torch", "classy_vision", "numpy"} & {*sys.modules})
"""


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--help"], 0),
        (["compare", "--help"], 0),
        (["train", "--config_file", "no.json"], 2),
        (["train", "--config_file", "digits_sgd_gc.json", "--output_folder", "/dev/null/x"], 2),
        (["inspect", "--config_file", "digits_sgd_gc.json", "--output", "x.pdf"], 2),
        (["bench", "--threads", "0"], 2),
        (["bench", "--stepz", "1"], 2),
    ],
)
def test_what_needs_no_torch_is_told_before_it_is_imported(flags, code, tmp_path):
    command = [sys.executable, "-c", RUN, *flags]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == f"{code} set()"
    assert len(result.stderr.splitlines()) == (code != 0)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["train", "--config_file", ""],
            "train: error: --config_file: a config must be a file, not ''",
        ),
        (["train", "--sed", "1", "--config_file", "digits_sgd_gc.json"], "classy-gc: error: unrec"),
        (
            ["inspect", "--config_file", "digits_sgd_gc.json", "--set", "a"],
            "inspect: error: --set: 'a'",
        ),
        (
            ["schedules", "--config_file", "a.json"],
            "schedules: error: --config_file: a.json: No such",
        ),
        (["train", "--config_file", LONG], f"train: error: --config_file: {LONG}: File name too"),
        (["configs", "--flatten", LONG], f"configs: error: {LONG}: File name too"),
        (
            ["schedules", "--config_file", "digits_sgd_gc.json", "--output", f"{LONG}.png"],
            "schedules: error: --output",
        ),
        (["bench", "--device", "x"], "bench: error: --device: invalid choice: 'x'"),
        (["tran"], "classy-gc: error: COMMAND: invalid choice: 'tran'"),
    ],
)
def test_bad_flags_are_one_line(argv, line, here, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    error = capsys.readouterr().err
    assert error.removeprefix("classy-gc ").startswith(line)
    assert len(error.splitlines()) == 1


def test_nobody_reads_on():
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from classy_gc.commands import main; sys.exit(main(['configs']))"
    result = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")


def test_settings_reach_the_command(here, capsys):
    flags = ["--config_file", "digits_sgd_gc.json", "--set", "optimizer.lr=0.25"]
    flags += [
        "--set",
        'optimizer.param_schedulers={"momentum": {"name": "constant", "value": 0.5}}',
    ]
    assert main(["param-groups", *flags]) == 0
    assert "lr 0.25" in capsys.readouterr().out
