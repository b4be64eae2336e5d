"""What an operator types to pick tasks."""

from datetime import UTC, datetime

import click
import pytest

from reproq_supervisor.cli.operations.filters import as_moment, as_statuses
from reproq_supervisor.core.runs import RunStatus
from reproq_supervisor.store.filters import Ago, Filter, like_of_glob

COMMAND = click.Command("list")
CONTEXT = click.Context(COMMAND)
OPTION = click.Option(["--since"])


@pytest.mark.parametrize(
    ("glob", "like"),
    [("shop.tasks.*", r"shop.tasks.%"), ("a_b", r"a\_b"), ("100%", r"100\%"), ("?.x", "_.x"), ("a\\b", r"a\\b"), ("*", "%"), ("", "")],
)
def test_a_glob_means_nothing_else_to_like(glob: str, like: str) -> None:
    assert like_of_glob(glob) == like


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2h", Ago(7200.0)),
        ("90", Ago(90.0)),
        ("2026-03-01T08:00Z", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("99999999d", Ago(1e10)),
        (None, None),
    ],
)
def test_a_moment_is_a_time_ago_or_one_with_its_offset(given: str | None, moment: object) -> None:
    assert as_moment(CONTEXT, OPTION, given) == moment


@pytest.mark.parametrize("given", ["yesterday", "2026-03-01T08:00", "2026-03-01", "-2h", ""])
def test_a_moment_that_could_mean_several_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter, match="expected how long ago, such as 2h, or a time with its offset"):
        as_moment(CONTEXT, OPTION, given)


def test_statuses_may_be_repeated_or_have_commas_between() -> None:
    convert = as_statuses(RunStatus.FAILED, RunStatus.CANCELLED)
    assert convert(CONTEXT, OPTION, ("failed, cancelled", "FAILED")) == (RunStatus.FAILED, RunStatus.CANCELLED)
    with pytest.raises(click.BadParameter, match="expected one of FAILED, CANCELLED, got 'READY'"):
        convert(CONTEXT, OPTION, ("READY",))


def test_a_filter_tells_points_in_time_from_times_ago() -> None:
    parameters = Filter(since=Ago(5), until=datetime(2026, 1, 1, tzinfo=UTC)).parameters()
    assert (parameters["since_at"], parameters["since_s"], parameters["until_s"]) == (None, 5, None)
    assert parameters["until_at"].year == 2026
