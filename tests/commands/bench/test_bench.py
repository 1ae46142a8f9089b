import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from classy_gc.commands import main
from tests import forked

CONFIG = Path(__file__).parents[3] / "configs" / "digits_sgd_gc.json"
SHORT = ["--steps", "2", "--warmup", "6", "--threads", "1"]


def rows_of(table):
    """(optimizer, variant) and the numbers of each row."""
    found, name = {}, None
    for line in table.splitlines():
        match = re.fullmatch(
            r"(.{19})(.+?)\s+([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)(?:  (\D.*))?", line
        )
        if match:
            name = match[1].strip() or name
            found[name, match[2]] = [*map(float, match.groups()[2:6]), match[7] or ""]
    return found


def test_table_json_and_picture_agree(tmp_path):
    names = ["rmsprop_tf", "sgd", "torch.optim.NAdam"]
    flags = ["--model", "squeezenet1_1", "--optimizers", *names, *SHORT]
    (tmp_path / "there").mkdir()
    run = forked.run(forked.command, "bench", *flags, cwd=tmp_path / "there")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    (folder,) = tmp_path.glob("there/output_bench_*")
    report = json.loads((folder / "bench.json").read_text())
    assert report["machine"]["threads"] == 1
    assert report["machine"]["torch"] == torch.__version__
    assert report["machine"]["processor"]
    assert f"{report['machine']['processor']}, 1 threads, torch {torch.__version__}" in run.stdout
    assert (report["model"], report["tensors"], report["parameters"]) == (
        "squeezenet1_1",
        52,
        1_235_496,
    )
    results = {(row["optimizer"], row["variant"]): row for row in report["results"]}
    printed = rows_of(run.stdout)
    assert list(printed) == list(results)
    assert list(dict.fromkeys(name for name, _ in results)) == names
    for (name, _), row in results.items():
        assert row["ratio"] == pytest.approx(row["ms"] / results[name, row["baseline"]]["ms"])
        assert 0 < row["ms_min"] <= row["ms"]
    for key, row in results.items():
        numbers = [row[k] for k in ("ms", "ms_min", "ratio", "extra_mb")]
        assert printed[key][:-1] == pytest.approx(numbers, abs=0.0051)
        assert printed[key][-1] == row["path"]
    assert results["rmsprop_tf", "GC before"]["path"] == "one pass"
    assert "no kernel" in results["torch.optim.NAdam", "GC after"]["path"]
    picture = imread(folder / "bench.png")
    assert picture.shape[:2] == (pytest.approx(150 * (1.6 + 0.26 * len(results)), abs=2), 1350)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10


def test_extra_memory_is_what_the_step_allocates(tmp_path):
    flags = ["--model", "squeezenet1_1", "--optimizers", "adamw", "--output_folder", str(tmp_path)]
    assert main(["bench", *flags, *SHORT]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())["results"]
    extra = {row["variant"]: row["extra_mb"] for row in results}
    weights = 1_235_496 * 4 / 1e6
    assert extra["torch AdamW fused"] < 0.02 * weights
    # The denominators of all weights at once.
    assert extra["torch AdamW foreach"] == pytest.approx(weights, rel=0.02)
    # A few thousand row sums.
    assert max(extra[f"GC {loc}"] for loc in ("off", "before", "after")) < 0.1 * weights


REFUSED = [
    (["--model", "resnet5"], "'resnet5' in --model, did you mean 'resnet50'?", "alexnet"),
    (["--model", "mlp"], "--model mlp: Classy Vision cannot build it from its name alone"),
    (["--optimizers", "adm"], "unknown optimizer 'adm'", "did you mean 'adam'?", "rmsprop_tf"),
    (["--optimizers", "sgd", "lamb"], "unknown optimizer 'lamb'"),
    (["--device", "tpu"], "--device", "'tpu'", "cpu"),
    (["--dtype", "float16"], "--dtype", "'float16'", "bfloat16"),
    (["--steps", "0"], "--steps: must be an integer >= 1, not 0"),
    (["--steps", "many"], "--steps", "'many'"),
    (["--warmup", "5"], "--warmup: must be an integer >= 6, not 5"),
    (["--threads", "0"], "--threads: must be an integer >= 1, not 0"),
    (["--optimizers", "nowhere.Lion"], "--optimizers nowhere.Lion:", "'nowhere'"),
    (["--optimizers", "torch.optim.Lyon"], "--optimizers torch.optim.Lyon:", "'Lyon'"),
    (["--optimizers", "torch.optim.LBFGS"], "LBFGS cannot be centralized: its step takes several"),
    (
        ["--config_file", str(CONFIG), "--model", "tiny"],
        "--model cannot be combined with --config_file",
    ),
    (["--config_file", "nowhere.json"], "--config_file: nowhere.json: No such file"),
    (["--output_folder", "file"], "--output_folder: folder file: file is no writable folder"),
    (
        ["--output_folder", "file/below"],
        "--output_folder: folder file/below: file is no writable folder",
    ),
]
if not torch.cuda.is_available():
    REFUSED.append((["--device", "cuda"], "--device cuda: torch finds no CUDA device"))


@pytest.mark.parametrize(("flags", "expected"), [(flags, text) for flags, *text in REFUSED])
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *flags])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("classy-gc bench: error: ")
    assert err.count("\n") == 1
    assert all(text in err for text in expected), err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
