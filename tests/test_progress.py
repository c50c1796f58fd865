from __future__ import annotations

import pytest

from nobackfill.cli.app import run
from nobackfill.progress import bar, be_quiet, note, track


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


def test_quiet_shows_neither_bars_nor_notes(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    be_quiet(True)
    try:
        with bar("outer", 2, log=True) as step:
            assert list(track(range(3), "inner", 3)) == [0, 1, 2]
            step("loss 0.5")
            note("on this processor")
        assert capfd.readouterr() == ("", "")
    finally:
        be_quiet(False)
    note("on this processor")
    assert capfd.readouterr().err == "on this processor\n"


@pytest.mark.train
def test_quiet_on_the_command_line_holds_for_one_command(capfd: pytest.CaptureFixture[str]) -> None:
    for option in (["-q"], ["--quiet"], []):
        assert run([*option, "methods", "--json"]) == 0
        capfd.readouterr()
        note("shown")
        assert capfd.readouterr().err == ("" if option else "shown\n")
