"""Runs as the text of several COPY statements."""

from datetime import UTC, datetime

import pytest

from reproq_supervisor.core.new_run import NewRun
from reproq_supervisor.core.runs import RunId
from reproq_supervisor.store.copying import parts_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def lines_of_parts(runs: list[NewRun]) -> list[list[str]]:
    return [part.decode().splitlines() for part in parts_of(runs, [RunId(id_) for id_ in range(len(runs))], NOW)]


@pytest.mark.parametrize("count", [0, 1, 1000, 1001, 12_345])
def test_parts_together_are_all_runs_in_order(count: int) -> None:
    parts = lines_of_parts([NewRun("app.task", [number]) for number in range(count)])
    assert [int(line.split("\t")[0]) for part in parts for line in part] == list(range(count))
    assert all(len(part) == 1000 for part in parts[:-1])
    assert max([len(part) for part in parts], default=0) <= 1000


def test_large_arguments_make_small_parts() -> None:
    parts = lines_of_parts([NewRun("app.task", ["x" * 400_000])] * 7)
    assert [len(part) for part in parts] == [3, 3, 1]


def test_an_argument_that_is_no_json_is_an_error_of_its_part() -> None:
    parts = parts_of([NewRun("app.task")] * 1000 + [NewRun("app.task", [object()])], [RunId(id_) for id_ in range(1001)], NOW)
    assert next(parts).count(b"\n") == 1000
    with pytest.raises(TypeError):
        next(parts)
