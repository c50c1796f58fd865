from __future__ import annotations

import pytest

from nobackfill.progress import bar, track


def test_quiet_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with bar("outer", 2) as step:
        assert list(track(range(3), "inner", 3)) == [0, 1, 2]
        step("state")
    assert capfd.readouterr() == ("", "")


def test_bars_within_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("outer", 2) as step:
        assert list(track(range(3), "inner", 3)) == [0, 1, 2]
        step("loss 0.5")
    with pytest.raises(ValueError, match="boom"), bar("again", 1):
        raise ValueError("boom")
    assert "outer" in capfd.readouterr().err
