"""Tasks of tests: enqueued by the command line, ended without a shard."""

import json

from tests.support.postgres import Database
from tests.support.program import run_program


def enqueue(database: Database, *arguments: object) -> list[int]:
    done = run_program("enqueue", "demo.tasks.add", "--dsn", database.dsn, "--json", *arguments)
    assert done.code == 0, done
    ids = done.json["ids"]
    assert all(isinstance(each, int) for each in ids)
    return list(ids)


def finish(database: Database, run: int, *, outcome: str = "succeed", value: object = 3) -> None:
    """End a run as a shard does: through the store's own function."""
    ((no,),) = database.query("SELECT nextval('reproq_lease_seq')")
    database.query("UPDATE task_lane SET state = 'running', leased_by = 'w', lease_no = %s, attempts = 1 WHERE result_id = %s", no, run)
    database.query(
        "SELECT * FROM reproq_end('w', ARRAY[%s]::bigint[], ARRAY[%s]::bigint[], ARRAY[%s], ARRAY[%s],"
        " ARRAY[NULL]::float8[], ARRAY[0.5]::float8[], ARRAY[NULL]::text[])",
        *(run, no, outcome, json.dumps(value)),
    )
