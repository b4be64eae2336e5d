"""How often memory is logged: as the older worker and its Django package write it."""

import pytest

from reproq_supervisor.settings.contract.memory_log import NAME, memory_log_interval
from tests.unit.test_contract_worker import worker


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("1m", 60.0),
        ("90", 90.0),
        ("0", None),
        ("", None),
        ("off", None),
        ("False", None),
        ("no", None),
        ("0s", None),
        ("10ms", 1.0),
    ],
)
def test_an_interval(text: str, seconds: float | None) -> None:
    assert memory_log_interval({NAME: text}) == seconds


def test_without_the_variable_nothing_is_logged() -> None:
    assert memory_log_interval({}) is None


def test_what_is_no_interval_is_told_and_stops_nothing() -> None:
    (line,) = worker(environ={"DATABASE_URL": "postgres://db/x", NAME: "often"}).advice
    assert "expected a duration" in line
