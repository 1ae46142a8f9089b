import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from classy_gc.commands import bench, main
from classy_gc.commands.bench import ALGORITHMS, Traffic, _variants, fewest_passes

CONFIG = Path(__file__).parents[2] / "configs" / "digits_sgd_gc.json"
SHORT = ["--steps", "2", "--warmup", "6", "--threads", "1"]


def check_picture(path, height):
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (pytest.approx(150 * height, abs=2), 1350)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10


def rows_of(table):
    """(optimizer, variant) and the numbers of each row."""
    found, name = {}, None
    for line in table.splitlines():
        match = re.fullmatch(
            r"(.{13})(.+?)\s+([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+|-) +([\d.]+)(?:  (\D.*))?", line
        )
        if match:
            name = match[1].strip() or name
            numbers = [None if x == "-" else float(x) for x in match.groups()[2:7]]
            found[name, match[2]] = [*numbers, match[8] or ""]
    return found


def test_table_json_and_picture_agree(tmp_path):
    names = ["radam", "sgd", "rmsprop_tf"]
    flags = ["--model", "squeezenet1_1", "--optimizers", *names, *SHORT]
    run = subprocess.run(
        [sys.executable, "-m", "classy_gc.commands", "bench", *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    (folder,) = tmp_path.glob("output_bench_*")
    report = json.loads((folder / "bench.json").read_text())
    assert report["machine"]["threads"] == 1
    assert report["machine"]["torch"] == torch.__version__
    assert report["machine"]["cpu"]
    assert f"{report['machine']['cpu']}, 1 threads, torch {torch.__version__}" in run.stdout
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
        numbers = [row[k] for k in ("ms", "ms_min", "ratio", "bytes_over_fewest", "extra_mb")]
        assert printed[key][:-1] == pytest.approx(numbers, abs=0.0051)
        assert printed[key][-1] == row["path"]
    assert {results[name, "GC before"]["path"] for name in names if name != "sgd"} == {"one pass"}
    check_picture(folder / "bench.png", 1.6 + 0.26 * (len(results) + 1.5 * len(names)))


def test_extra_memory_is_what_the_step_allocates(tmp_path):
    flags = ["--model", "squeezenet1_1", "--optimizers", "adamw", "--output_folder", str(tmp_path)]
    assert main(["bench", *flags, *SHORT]) == 0
    results = json.loads((tmp_path / "bench.json").read_text())["results"]
    extra = {row["variant"]: row["extra_mb"] for row in results}
    weights = 1_235_496 * 4 / 1e6
    assert extra["torch fused"] < 0.02 * weights
    # The denominators of all weights at a time.
    assert extra["torch foreach"] == pytest.approx(weights, rel=0.02)
    # A few thousand row sums.
    assert max(extra[f"GC {loc}"] for loc in ("off", "before", "after")) < 0.1 * weights


# The hand count, in tensors of the size of the weight.
@pytest.mark.parametrize(
    ("name", "passes"),
    {
        # g, p, m in; p, m out. GC with decay: Σg and Σp in; g in and out.
        "sgd": {"torch fused": 5, "GC off": 5, "GC on": 5 + 2 + 2},
        # p, g, m, v in; p, m, v out. Before: as above. After: Σp, Σp′ in; p′ in and out.
        "adam": {"torch fused": 7, "GC off": 7, "GC before": 7 + 2 + 2, "GC after": 7 + 2 + 2},
        # decoupled decay: no Σp before
        "adamw": {
            "torch fused": 7,
            # decay 2; m: lerp 3; v: mul 2, addcmul 3; √v: sqrt 2, div 2, add 2; p: addcdiv 4
            "torch foreach": 2 + 3 + (2 + 3) + (2 + 2 + 2) + 4,
            "GC off": 7,
            "GC before": 7 + 1 + 2,
            "GC after": 7 + 2 + 2,
        },
    }.items(),
)
def test_passes_over_memory(name, passes, monkeypatch):
    monkeypatch.setenv("CLASSY_GC_KERNELS", "0")  # whose traffic nobody counts
    weight = torch.nn.Parameter(torch.randn(64, 1024))  # row sums: a thousandth of it
    variants = _variants(name, [weight], ())
    for variant, expected in passes.items():
        for _ in range(6):
            weight.grad = torch.randn_like(weight)
            variants[variant].step()
        weight.grad = torch.randn_like(weight)
        with Traffic() as traffic:
            variants[variant].step()
        assert traffic.bytes / weight.nbytes == pytest.approx(expected, abs=0.02), variant
    assert fewest_passes(ALGORITHMS[name].moments) == passes["GC off"]


@pytest.mark.parametrize(
    ("operation", "passes"),
    [
        (lambda x, y: x + y, 3),
        (lambda x, y: x.addcmul_(y, y), 3),
        (lambda x, y: x.copy_(y), 2),
        (lambda x, y: x.zero_(), 1),
        (lambda x, y: x.view(4, -1).t(), 0),
        (lambda x, y: torch.empty_like(x), 0),
        (lambda x, y: x.clone(), 2),
        (lambda x, y: torch._foreach_mul([x, y], 2), 4),
        (lambda x, y: torch._foreach_add_([x], [y]), 3),
    ],
)
def test_traffic_of_an_operator(operation, passes):
    x, y = torch.ones(64), torch.ones(64)
    with Traffic() as traffic:
        operation(x, y)
    assert traffic.bytes == passes * x.nbytes


def test_training(tmp_path, capsys):
    config = json.loads(CONFIG.read_text())
    for dataset in config["dataset"].values():
        dataset["num_samples"] = 96  # three steps an epoch, so that epochs end meanwhile
    config["use_gpu"] = False
    # A schedule of its own must not decide which steps run with GC.
    config["optimizer"]["param_schedulers"]["use_gc"] = {"name": "constant", "value": 0}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    flags = ["--training", "--config_file", str(file), "--output_folder", str(tmp_path / "out")]
    assert main(["bench", *flags, "--steps", "3", "--warmup", "6"]) == 0
    training = json.loads((tmp_path / "out" / "bench.json").read_text())["training"]
    ms, rest = training["optimizer_ms"], training["other_ms"]
    assert min(*ms.values(), rest) > 0
    for gc in ("off", "on"):
        share = ms[gc] / (rest + ms[gc])
        assert training["optimizer_share"][gc] == pytest.approx(share)
    cost = (ms["on"] - ms["off"]) / (rest + ms["on"])
    assert training["gc_share"] == pytest.approx(cost)
    out = capsys.readouterr().out
    assert f"GC costs {cost:.2%} of a training step" in out
    for gc in ("off", "on"):
        assert re.search(rf"GC {gc} +{ms[gc]:.3f} +{rest + ms[gc]:.3f} ", out)
    check_picture(tmp_path / "out" / "bench.png", 1.6 + 0.26 * 6)


REFUSED = [
    (["--model", "resnet5"], "unknown --model 'resnet5'", "resnet50"),
    (["--model", "mlp"], "--model mlp: Classy Vision cannot build it from its name alone"),
    (["--optimizers", "adm"], "unknown optimizer 'adm'", "did you mean 'adam'?", "rmsprop_tf"),
    (["--optimizers", "sgd", "lamb"], "unknown optimizer 'lamb'"),
    (["--device", "tpu"], "--device", "'tpu'", "cpu"),
    (["--dtype", "float16"], "--dtype", "'float16'", "bfloat16"),
    (["--steps", "0"], "--steps must be an integer >= 1, not 0"),
    (["--steps", "many"], "--steps", "'many'"),
    (["--warmup", "5"], "--warmup must be an integer >= 6, not 5"),
    (["--threads", "0"], "--threads must be an integer >= 1, not 0"),
    (["--training"], "--training needs --config_file"),
    (["--config_file", str(CONFIG)], "--config_file is for --training only"),
    (
        ["--training", "--config_file", str(CONFIG), "--model", "tiny"],
        "--model cannot be combined with --training",
    ),
    (["--training", "--config_file", "nowhere.json"], "--config_file nowhere.json: No such file"),
    (["--output_folder", "file"], "--output_folder file: file is no writable folder"),
    (["--output_folder", "file/below"], "--output_folder file/below: file is no writable folder"),
    (["--stpes", "3"], "unrecognized arguments: --stpes 3"),
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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"optimizer": {"name": "sgd"}}, "needs an optimizer with GC, not 'sgd'"),
        ({"test_only": True}, "test_only is true"),
    ],
)
def test_configs_without_gc_to_measure(tmp_path, capsys, change, expected):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(CONFIG.read_text()), "use_gpu": False, **change}))
    with pytest.raises(SystemExit):
        main(["bench", "--training", "--config_file", str(file)])
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_a_missing_peer_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "matplotlib" or None)
    flags = ["--model", "tiny", "--optimizers", "sgd", "--peers", "--output_folder", str(tmp_path)]
    assert main(["bench", *flags, *SHORT]) == 0
    out = capsys.readouterr().out
    assert "optimi is not installed: pip install torch-optimi" in out
    assert "pytorch_optimizer is not installed: pip install pytorch-optimizer" in out
    assert ("sgd", "GC on") in rows_of(out)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_timed_is_ordinary_arithmetic(name, monkeypatch):
    """Subnormal numbers and NaN have a speed of their own."""
    variants = {}
    monkeypatch.setattr(
        bench, "_variants", lambda *args: variants.update(_variants(*args)) or variants
    )
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 8), (4,))]
    gradients = [torch.randn_like(p) for p in parameters]
    args = argparse.Namespace(steps=150, warmup=6, peers=())
    assert len(bench._measure(name, parameters, gradients, args, str)) == len(variants)
    moments = [x for o in variants.values() for s in o.state.values() for x in s.values()]
    assert len(moments) >= len(variants) * len(parameters) * ALGORITHMS[name].moments
    for x in [*parameters, *(p.grad for p in parameters), *moments]:
        x = torch.as_tensor(x)
        assert x.isfinite().all()
        assert x.abs().min() > torch.finfo(torch.float32).tiny
