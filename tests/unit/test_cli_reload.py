"""What `reload` says about a plan."""

from reproq_supervisor.cli.daemon.reload import _row


def test_a_pool_that_comes_or_goes_is_named_and_not_spelled_out() -> None:
    pool = {"queues": {"mail": 1}, "timeout": 900.0}
    come = _row({"key": "pools.mail", "old": None, "new": pool, "class": "rolling"})
    gone = _row({"key": "pools.mail", "old": pool, "new": None, "class": "rolling"})
    assert come == ("pools.mail", "none", "added", "new processes beside the old")
    assert gone == ("pools.mail", "there", "removed", "at once; what runs may finish")


def test_a_changed_value_is_shown_on_both_sides() -> None:
    row = _row({"key": "app.preload", "old": ["a"], "new": ["b"], "class": "rolling"})
    assert row == ("app.preload", '["a"]', '["b"]', "new processes beside the old")
