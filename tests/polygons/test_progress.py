from types import SimpleNamespace

import tqdm.std

from classy_gc.polygons import progress


def test_without_a_terminal_it_is_a_line_a_minute(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(tqdm.std, "time", lambda: clock.now)
    for _ in progress.shown(range(2000), "tiles"):
        clock.now += 0.125  # 250 seconds in all
    lines = [line.strip() for line in capsys.readouterr().err.split("\n")]
    assert lines == [f"tiles: {n} of 2000" for n in (480, 960, 1440, 1920)] + [""]
