"""The benchmark measures the real daemon: every question has an answer, and every task ran."""

import pytest

from benchmarks.contenders.contender import load_contenders
from benchmarks.measures.drain import Load, drain
from benchmarks.measures.enqueue import bulk, single
from benchmarks.measures.latency import latency
from tests.support.postgres import Cluster


@pytest.mark.slow
@pytest.mark.parametrize("name", ["floor", "product"])
def test_a_backlog_is_worked_off(cluster: Cluster, name: str) -> None:
    ((contender,), missing) = load_contenders([name])
    figures = drain(cluster, contender, Load(300))
    assert not missing
    assert figures["tasks_per_s"] > 0
    assert 0 < figures["commits_per_task"] < 2
    assert figures["pss_mib"] >= figures["private_mib"] > 0


@pytest.mark.slow
def test_a_producer_and_an_idle_pool_are_measured(cluster: Cluster) -> None:
    ((contender,), _) = load_contenders(["product"])
    assert bulk(cluster, contender, 200)["enqueued_per_s"] > 0
    assert single(cluster, contender, 20)["median_ms"] > 0
    assert latency(cluster, contender, 5)["p50_ms"] > -1000
