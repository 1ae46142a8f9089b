from types import SimpleNamespace

from classy_gc.polygons import progress


def test_without_a_terminal_it_is_a_line_a_minute(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    for label, show in (("tiles", True), ("nothing", False)):
        for _ in progress.shown(range(2000), label, show):
            clock.now += 0.125  # 250 seconds in all
    assert capsys.readouterr().err.splitlines() == [
        "tiles: 480 of 2,000",
        "tiles: 960 of 2,000",
        "tiles: 1,440 of 2,000",
        "tiles: 1,920 of 2,000",
    ]
