"""How pools share a machine, case by case."""

from reproq_supervisor.core.policy.budget import Amounts, Claimant, Grant, Resource, divide

COMPUTES = Amounts(executors=1, processors=1.0, memory=100, connections=1)
SLEEPS = Amounts(executors=1, processors=0.0, memory=100, connections=1)


def pool(size: int = 1, use: int = 0, *, least: int = 1, most: int = 20, weight: float = 1.0, takes: Amounts = SLEEPS) -> Claimant:
    return Claimant(least, most, size, use, use, weight, takes)


def numbers(grants: list[Grant]) -> list[int]:
    return [grant.executors for grant in grants]


def test_what_nobody_else_has_use_for_is_head_room_of_all() -> None:
    grants = divide(Amounts(executors=30), [pool(), pool()])
    assert numbers(grants) == [15, 15]
    assert {grant.lacks for grant in grants} == {Resource.EXECUTORS}


def test_one_that_has_use_for_it_gets_what_the_others_do_not_use() -> None:
    assert numbers(divide(Amounts(executors=12), [pool(use=10), pool()])) == [10, 2]


def test_both_having_use_for_more_share_by_weight() -> None:
    grants = divide(Amounts(executors=12), [pool(use=20, weight=3), pool(use=20)])
    assert numbers(grants) == [9, 3]


def test_one_that_has_more_than_its_part_gives_back_before_others_get_it() -> None:
    first, second = pool(size=11, use=20), pool(use=20)
    assert numbers(divide(Amounts(executors=12), [first, second])) == [6, 1]
    first = pool(size=8, use=20)
    assert numbers(divide(Amounts(executors=12), [first, second])) == [6, 4]


def test_one_that_has_more_than_it_has_use_for_keeps_it_while_nobody_else_has() -> None:
    assert numbers(divide(Amounts(executors=12), [pool(size=10), pool()])) == [10, 2]


def test_the_least_of_each_is_given_whatever_there_is() -> None:
    assert numbers(divide(Amounts(executors=0), [pool(least=3, size=3), pool(least=2, size=2)])) == [3, 2]


def test_two_that_compute_share_the_processors() -> None:
    both = [pool(use=20, takes=COMPUTES), pool(use=20, takes=COMPUTES)]
    grants = divide(Amounts(processors=8.0), both)
    assert numbers(grants) == [4, 4]
    assert grants[0].lacks is Resource.PROCESSORS


def test_one_that_sleeps_needs_no_processor() -> None:
    assert numbers(divide(Amounts(processors=2.0), [pool(use=20, takes=COMPUTES), pool(use=20)])) == [2, 20]


def test_idle_executors_take_no_processor() -> None:
    idle = [pool(least=4, size=4, takes=COMPUTES) for _ in range(10)]
    assert numbers(divide(Amounts(processors=4.0), [pool(use=20, takes=COMPUTES), *idle]))[0] == 4


def test_bursts_of_all_at_once_do_not_take_a_processor_twice() -> None:
    """Each may have what is left when all have their least to do; who asks first gets it."""
    idle = [pool(takes=COMPUTES) for _ in range(2)]
    assert numbers(divide(Amounts(processors=2.0), idle)) == [1, 1]
    assert numbers(divide(Amounts(processors=2.0), [pool(use=8, takes=COMPUTES), pool(takes=COMPUTES)])) == [2, 1]
    assert numbers(divide(Amounts(processors=8.0), idle)) == [4, 4]


def test_what_two_that_compute_leave_of_two_processors_is_not_given_to_a_third() -> None:
    takes = Amounts(executors=1, processors=0.97)
    assert numbers(divide(Amounts(processors=2.0), [pool(use=20, takes=takes)])) == [2]


def test_a_part_of_a_processor_is_enough_for_one() -> None:
    assert numbers(divide(Amounts(processors=0.3), [pool(use=20, least=0, size=0, takes=COMPUTES)])) == [1]


def test_the_last_processor_is_used_in_part() -> None:
    takes = Amounts(executors=1, processors=0.8)
    assert numbers(divide(Amounts(processors=2.0), [pool(use=20, takes=takes)])) == [3]


def test_large_executors_end_where_the_memory_does() -> None:
    large, small = Amounts(executors=1, memory=1000), Amounts(executors=1, memory=100)
    grants = divide(Amounts(memory=4500), [pool(use=20, takes=large), pool(use=4, most=4, takes=small)])
    assert numbers(grants) == [4, 4]
    assert (grants[0].lacks, grants[1].lacks) == (Resource.MEMORY, None)


def test_connections_are_counted_for_each_slot() -> None:
    assert numbers(divide(Amounts(connections=50), [pool(use=20, takes=Amounts(executors=1, connections=10))])) == [5]
