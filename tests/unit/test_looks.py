"""Where a claim begins while looks from the start are dear."""

from datetime import UTC, datetime, timedelta

from reproq_supervisor.store.looks import END, REST_FACTOR, START, Looks, Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def place(number: int) -> Place:
    return Place(float(number), NOW + timedelta(seconds=number), number)


def test_every_claim_looks_from_the_start_while_that_is_cheap() -> None:
    looks = Looks()
    assert looks.places(["a", "b"], 0) == [START, START]
    assert looks.rest_s(0) is None


def test_after_a_dear_look_claims_begin_where_the_last_one_ended() -> None:
    looks = Looks()
    looks.looked("a", place(1), 0.05, 10)
    assert looks.places(["a", "b"], 10.1) == [place(1), START]
    looks.looked("a", place(2), None, 10.2)
    assert looks.places(["a"], 10.3) == [place(2)]
    looks.looked("a", None, None, 10.4)
    assert looks.places(["a"], 10.5) == [place(2)]


def test_at_most_a_twentieth_of_the_time_goes_into_dear_looks() -> None:
    looks, now, looking_s = Looks(), 0.0, 0.0
    while now < 100:
        if looks.places(["a"], now) == [START]:
            looking_s += 0.05
            now += 0.05
            looks.looked("a", place(1), 0.05, now)
        now += 0.001
    assert 0.03 < looking_s / now < 0.055


def test_a_look_from_the_start_follows_within_its_rest() -> None:
    looks = Looks()
    looks.looked("a", place(1), 0.05, 10)
    assert looks.rest_s(10) == REST_FACTOR * 0.05
    assert looks.places(["a"], 11) == [START]
    assert looks.rest_s(11) is None


def test_a_dear_look_that_found_nothing_keeps_the_place_that_is_known() -> None:
    looks = Looks()
    looks.looked("a", place(1), 0.05, 10)
    looks.looked("a", None, 0.05, 11)
    assert looks.places(["a"], 11.5) == [place(1)]
    looks.looked("b", None, 0.05, 11)
    assert looks.places(["b"], 11.5) == [END]
