"""REPROQ_SCHEDULER_MODE in the contract's words."""

import pytest

from reproq_supervisor.settings.scheduler_mode import does_beat


@pytest.mark.parametrize(
    ("mode", "beats"),
    [("", None), (" ", None), ("beat", True), (" Beat ", True), ("cron", False), ("pg_cron", False), ("disabled", False), ("baet", False)],
)
def test_only_beat_means_that_we_fire(mode: str, beats: bool | None) -> None:
    assert does_beat({"REPROQ_SCHEDULER_MODE": mode}) is beats


def test_without_the_variable_it_says_nothing() -> None:
    assert does_beat({}) is None
