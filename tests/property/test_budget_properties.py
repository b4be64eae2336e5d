"""How pools share a machine, over all that they can have and want: nobody starves, nothing is given twice, nothing is left lying."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.policy.budget import Amounts, Claimant, Grant, Resource, divide

takes_of = st.builds(
    Amounts,
    executors=st.just(1.0),
    processors=st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0]),
    memory=st.sampled_from([0.0, 1.0, 50.0]),
    connections=st.sampled_from([0.0, 1.0, 10.0]),
)
totals_of = st.builds(
    Amounts,
    executors=st.none() | st.integers(0, 60),
    processors=st.none() | st.floats(0.5, 64),
    memory=st.none() | st.integers(0, 2000),
    connections=st.none() | st.integers(0, 400),
)


@st.composite
def claimants_of(draw: st.DrawFn) -> Claimant:
    least = draw(st.integers(0, 5))
    most = least + draw(st.integers(0, 30))
    return Claimant(
        least=least,
        most=most,
        size=draw(st.integers(least, most)),
        want=draw(st.integers(0, 50)),
        use=draw(st.integers(0, 50)),
        weight=draw(st.sampled_from([0.5, 1.0, 2.0, 10.0])),
        takes=draw(takes_of),
    )


several = st.lists(claimants_of(), max_size=6)


def taken(claimants: list[Claimant], parts: list[int], resource: Resource) -> float:
    return sum(part * (each.takes.of(resource) or 0.0) for each, part in zip(claimants, parts, strict=True))


def numbers(grants: list[Grant]) -> list[int]:
    return [grant.executors for grant in grants]


@given(totals_of, several)
def test_each_has_its_least_and_nobody_more_than_its_most(totals: Amounts, claimants: list[Claimant]) -> None:
    grants = divide(totals, claimants)
    assert all(each.least <= grant.executors <= each.most for each, grant in zip(claimants, grants, strict=True))
    assert all(grant.lacks is not None or grant.executors == each.most for each, grant in zip(claimants, grants, strict=True))


@given(totals_of, several)
def test_what_all_may_have_and_still_have_is_never_more_than_there_is(totals: Amounts, claimants: list[Claimant]) -> None:
    grants = divide(totals, claimants)
    # Until they have given it back, they still have it.
    alive = [max(each.size, grant.executors) for each, grant in zip(claimants, grants, strict=True)]
    had = [max(each.least, each.size) for each in claimants]
    for resource in Resource:
        total = totals.of(resource)
        if total is None or resource is Resource.PROCESSORS:
            continue
        assert taken(claimants, alive, resource) <= max(total, taken(claimants, had, resource)) + 1e-6


@given(several)
def test_without_bounds_each_may_have_its_most(claimants: list[Claimant]) -> None:
    assert numbers(divide(Amounts(), claimants)) == [each.most for each in claimants]


@given(totals_of, several)
def test_when_all_have_what_they_were_granted_nothing_moves_any_more(totals: Amounts, claimants: list[Claimant]) -> None:
    for _ in range(40):
        grants = divide(totals, claimants)
        # All use what they get, and give back what they may not have.
        moved = [
            replace(each, size=max(each.least, min(grant.executors, max(each.use, each.size, 1)), 0))
            for each, grant in zip(claimants, grants, strict=True)
        ]
        if moved == claimants:
            break
        claimants = moved
    else:
        raise AssertionError("the sizes go on changing")


@given(st.integers(0, 60), st.lists(claimants_of(), min_size=2, max_size=6), st.integers(0, 5))
def test_who_wants_more_takes_nothing_from_who_is_within_its_part(total: int, claimants: list[Claimant], greedy: int) -> None:
    plain = [replace(each, size=each.least, takes=Amounts(executors=1.0), use=min(each.use, each.most)) for each in claimants]
    i = greedy % len(plain)
    before = numbers(divide(Amounts(executors=total), plain))
    after = numbers(divide(Amounts(executors=total), [replace(each, use=each.most) if j == i else each for j, each in enumerate(plain)]))
    for j, each in enumerate(plain):
        if j != i and after[j] < min(each.use, before[j]):
            # Only what it had beyond its weight.
            assert (after[j] + 1) / each.weight >= after[i] / plain[i].weight - 1e-9
