"""What tasks can be given, and get again."""

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import models
from django.db.models import TextChoices
from django.test.utils import isolate_apps
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from reproq_django.calls import call_of
from reproq_django.conf import BackendOptions
from reproq_django.routing import Routes
from reproq_django.serialization import TYPE, DeserializationError, decode_args, encode_args
from reproq_supervisor.store.enqueue import hash_of
from tests.django.app import tasks

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([TYPE, "a", "items", "pk"]), inner, max_size=4),
    max_leaves=12,
)
delays = st.timedeltas(timedelta(days=-1000), timedelta(days=1000))


def round_trip(value: Any) -> Any:
    (decoded,), _ = decode_args(*encode_args([value], {}, "app.task"), "default")
    return decoded


class Colour(TextChoices):
    RED = "red"


@given(plain)
def test_plain_values_come_back_equal_whatever_their_names_are(value: Any) -> None:
    assert round_trip(value) == value


@given(st.lists(delays) | st.dictionaries(st.just("after"), delays))
def test_durations_come_back_as_such(value: Any) -> None:
    assert round_trip(value) == value


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Decimal("12.34"), "12.34"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2025, 1, 1, 12, 0, 0, 123456, tzinfo=UTC), "2025-01-01T12:00:00.123Z"),
        (date(2025, 1, 1), "2025-01-01"),
        (time(12, 30), "12:30:00"),
        ((1, (2, 3)), [1, [2, 3]]),
        (gettext_lazy("hello"), "hello"),
        ({1: "a", None: "b", gettext_lazy("hello"): "c"}, {"1": "a", "null": "b", "hello": "c"}),
        (Colour.RED, "red"),
    ],
)
def test_what_json_has_no_form_for_arrives_as_text(value: Any, arrives: Any) -> None:
    found = round_trip(value)
    assert (found, type(found)) == (arrives, type(arrives))


@pytest.mark.usefixtures("any_database")
def test_a_model_is_fetched_anew() -> None:
    group = Group.objects.create(name="before")
    encoded = encode_args([], {"group": group}, "app.task")
    Group.objects.update(name="after")

    _, decoded = decode_args(*encoded, "default")

    assert encoded[1] == {"group": {TYPE: "model", "app_label": "auth", "model": "group", "pk": str(group.pk)}}
    assert (decoded["group"], decoded["group"].name) == (group, "after")


@pytest.mark.usefixtures("any_database")
@pytest.mark.parametrize(
    "value",
    [
        {TYPE: "model", "app_label": "auth", "model": "group", "pk": "12345"},
        {TYPE: "model", "app_label": "auth", "model": "group", "pk": "no number"},
        {TYPE: "model", "app_label": "auth", "model": "nothing", "pk": "1"},
        {TYPE: "model", "app_label": "auth"},
        {TYPE: "timedelta", "days": "many"},
        {TYPE: "dict"},
        {TYPE: "somebody else's"},
        {TYPE: None},
    ],
)
def test_what_cannot_be_made_again_fails_by_name(value: dict[str, Any]) -> None:
    with pytest.raises(DeserializationError):
        decode_args([value], {}, "default")


def test_a_model_that_is_not_saved_is_refused() -> None:
    with pytest.raises(ValueError, match=r"auth\.Group: expected a saved object"):
        encode_args([Group(name="new")], {}, "app.task")


@isolate_apps("tests.django.app")
def test_keys_that_are_one_as_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"app\.task: args\[0\]: expected keys that differ as text"):
        encode_args([{1: "a", "1": "b"}], {}, "app.task")


def test_a_model_whose_key_is_of_several_columns_is_refused() -> None:
    class Seat(models.Model):
        pk = models.CompositePrimaryKey("row", "number")
        row = models.IntegerField()
        number = models.IntegerField()

        class Meta:
            app_label = "app"

    seat = Seat(row=1, number=2)
    seat._state.adding = False

    with pytest.raises(TypeError, match=r"Seat: expected an object with one primary key"):
        encode_args([seat], {}, "app.task")


def test_what_has_no_form_in_json_is_refused_by_its_place() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(TypeError, match=r"^app\.task: args\[1\]: "):
        encode_args([0, {1, 2}], {}, "app.task")
    with pytest.raises(TypeError, match=r"^app\.task: kwargs\.groups: "):
        encode_args([], {"groups": Group.objects.all()}, "app.task")
    with pytest.raises(ValueError, match=r"^app\.task: args\[0\]: expected a value that does not contain itself"):
        encode_args([endless], {}, "app.task")


def test_the_hash_is_the_one_that_both_older_programs_agreed_on() -> None:
    """The contract's vector: whoever switches in the middle still finds duplicates."""
    kwargs = {
        "amount": Decimal("12.34"),
        "notes": "hello",
        "token": uuid.UUID("123e4567-e89b-12d3-a456-426614174000"),
        "lock_key": "user:123",
        "concurrency_key": "account:42",
        "concurrency_limit": 2,
        "priority": 5,
        "run_after": datetime(2025, 1, 1, 12, tzinfo=UTC),
    }
    options = BackendOptions(code_ref="abc123", pip_lock_hash="deadbeef")

    call = call_of(tasks.add, [1, {"nested": True}], kwargs, options, "default", Routes.read())
    spec = call.run.spec().replace("tests.django.app.tasks.add", "contracts.example_task")

    assert len(spec.encode()) == 445
    assert hash_of(spec) == "2d6721014757fa10799d528b6b15aee6c76a841b9ea74e187875f4abfcdbedd5"
