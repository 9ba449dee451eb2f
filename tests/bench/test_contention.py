"""Several processes against one balance, one budget and one rate, on every store that processes share."""

import pytest

from benchmarks.contention import main


def test_nothing_is_overspent(capsys: pytest.CaptureFixture[str]) -> None:
    main(3, 60)
    lines = capsys.readouterr().out.splitlines()
    assert 3 == len(lines)
    for line in lines:
        assert " right: " in line, line
        assert "ok " in line
