from __future__ import annotations

import pytest

from nobackfill.cli.app import run
from nobackfill.progress import bar, be_quiet, be_verbose, note, track


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


def test_verbose_logs_what_is_silent_else(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("nobackfill.progress.VERBOSE_SECONDS", 0.0)
    be_verbose(True)
    try:
        assert list(track(range(3), "inner", 3)) == [0, 1, 2]
    finally:
        be_verbose(False)
    assert capfd.readouterr().err.splitlines()[-1].startswith("inner: 3/3")


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_tells_where_an_error_is_from(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in ([option, "report", "gone.json"], ["report", "gone.json", option]):
        assert run(arguments) == 2
        printed = capfd.readouterr().err
        assert "Traceback" in printed
        assert printed.splitlines()[-1].startswith("nobackfill: gone.json: no such file")
    assert run(["report", "gone.json"]) == 2
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.train
def test_quiet_on_the_command_line_holds_for_one_command(capfd: pytest.CaptureFixture[str]) -> None:
    for option in (["-q"], ["--quiet"], []):
        for arguments in ([*option, "methods", "--json"], ["methods", "--json", *option]):
            assert run(arguments) == 0
            capfd.readouterr()
            note("shown")
            assert capfd.readouterr().err == ("" if option else "shown\n")
