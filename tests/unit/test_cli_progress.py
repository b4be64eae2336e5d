"""What a command that was interrupted says that it has done."""

import pytest

from reproq_supervisor.cli.operations.bulk import InterruptedDeed, progress


def interrupted(**options: bool) -> str:
    with pytest.raises(InterruptedDeed) as told, progress("pruning", None, **options) as advance:
        advance(1200)
        raise KeyboardInterrupt
    return str(told.value)


def test_what_was_done_is_told() -> None:
    assert "1,200 tasks were done" in interrupted()


def test_a_dry_run_has_done_nothing() -> None:
    assert interrupted(dry=True) == "interrupted in a dry run of pruning: nothing was changed"
