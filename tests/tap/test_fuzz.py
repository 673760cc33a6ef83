"""A short run of the fuzz target, so that it keeps running; `python -m tests.tap.fuzz_decode` for a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.tap.wire import Splitter
from tests.tap import fuzz_decode


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    save = tmp_path / "failure.json"
    assert fuzz_decode.fuzz(1.0, seed=1, save=save) > 100
    assert not save.exists()


def test_what_fails_is_saved_and_can_be_fed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = tmp_path / "failure.json"
    with monkeypatch.context() as broken:
        broken.setattr(Splitter, "_take_whole", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            fuzz_decode.fuzz(10.0, seed=1, save=save)
        broken.setattr("sys.argv", ["fuzz_decode", "--replay", str(save)])
        with pytest.raises(ZeroDivisionError):
            fuzz_decode.main()
    monkeypatch.setattr("sys.argv", ["fuzz_decode", "--replay", str(save)])
    fuzz_decode.main()  # mended
