"""Whether a server can have jobs of pg_cron, and why not."""

import pytest

from reproq_supervisor.store.pg_cron import Support


@pytest.mark.parametrize(
    ("support", "is_worth_a_try", "hindrance"),
    [
        (Support(is_made=True, is_available=True, home="app", database="app"), True, None),
        (Support(is_made=False, is_available=True, home="app", database="app"), True, None),
        (Support(is_made=False, is_available=False, home=None, database="app"), False, "this server has no pg_cron"),
        (Support(is_made=False, is_available=True, home=None, database="app"), True, "shared_preload_libraries"),
        (Support(is_made=False, is_available=True, home="postgres", database="app"), True, "expected app in cron.database_name"),
        (Support(is_made=True, is_available=True, home="app", database="app", timezone="Etc/UTC"), True, None),
        (
            Support(is_made=True, is_available=True, home="app", database="app", timezone="Asia/Tokyo"),
            True,
            "expected GMT in cron.timezone",
        ),
    ],
)
def test_what_stands_in_the_way_is_named(support: Support, is_worth_a_try: bool, hindrance: str | None) -> None:
    assert bool(support) == is_worth_a_try
    told = support.hindrance()
    assert (told is None) if hindrance is None else (hindrance in (told or ""))
