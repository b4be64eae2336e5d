"""What `status` makes of the daemon's answer."""

from typing import Any

from reproq_supervisor.cli.daemon.status_view import (
    POOL_COLUMNS,
    PROCESS_COLUMNS,
    duty_rows,
    head_lines,
    pool_rows,
    process_rows,
    recycled_lines,
    remarks,
    short_duty_rows,
)

SHARD_PID = 20


def snapshot(**changes: Any) -> dict[str, Any]:
    counts = {f"{name}_total": 0 for name in ("claimed", "completed", "failed", "retried")}
    return {
        "executors": {"ready": 2, "busy": 1, "booting": 0, "wanted": 2, "pids": []},
        "running": 1,
        "rate_per_s": 0.0,
        "database": {"up": True, "since_s": 5.0, "error": None},
        **counts,
        **changes,
    }


def account(**changes: Any) -> dict[str, Any]:
    units = {"mail/0": {"starts": 1, "failures": 0, "last_exit": None, "last_exit_s_ago": None}}
    return {"circuit": "closed", "reason": None, "recent_exits": 0, "allowed_exits": 5, "window_s": 60.0, "units": units, **changes}


def pool(**changes: Any) -> dict[str, Any]:
    return {
        "generation": 1,
        "shards": 1,
        "ready": 1,
        "draining": 0,
        "paused": False,
        "queues": {"mail": 1},
        "executors": {"min": 1, "max": 2},
        "override": None,
        "account": account(),
        "snapshots": {"mail/0@1": snapshot()},
        **changes,
    }


def answer(mail: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    child = {"child": "mail/0", "role": "shard", "pool": "mail", "generation": 1, "pid": SHARD_PID, "nursery_pid": 21, "worker_id": "w"}
    return {
        "pid": 10,
        "version": "0.1.0",
        "state": "running",
        "uptime_s": 3725.4,
        "generation": 1,
        "config_path": "/etc/x.yaml",
        "control_socket": "/run/x.sock",
        "embedded": False,
        "stopping": None,
        "children": [{**child, "state": "ready", "uptime_s": 59.9, "heard_s_ago": 0.1, "why": None}],
        "pools": {"mail": mail or pool()},
        "keeper": {"ready": True, "account": account(), "snapshot": {"duties": {}, "database": {"up": True}}},
        "dead_workers": 0,
        "last_reload": None,
        **changes,
    }


def row(status: dict[str, Any], memory: dict[int, int] | None = None) -> dict[str, object]:
    (found,) = pool_rows(status, memory or {})
    return dict(zip(POOL_COLUMNS, found, strict=True))


def head(status: dict[str, Any], memory: dict[int, int] | None = None) -> str:
    return "\n".join(line.text for line in head_lines(status, memory or {}))


def test_the_head_says_what_runs_and_for_how_long() -> None:
    text = head(answer(), {10: 10 * 2**20, SHARD_PID: 30 * 2**20})
    assert text.splitlines()[0] == "reproq-supervisor 0.1.0: running, pid 10, up 1h2m, generation 1"
    assert "external, up" in text
    assert "40.0 MiB in all processes" in text


def test_the_head_says_who_keeps() -> None:
    def keeper(**term: Any) -> dict[str, Any]:
        return {"ready": True, "account": account(), "snapshot": {"duties": {}, "database": {"up": True}, "term": term}}

    assert "keeper         ready, acts for 5.0s" in head(answer(keeper=keeper(acts=True, term_no=3, holder="me", since_s=5.0)))
    assert "ready, stands by: other-1 acts for 1h" in head(answer(keeper=keeper(acts=False, term_no=3, holder="other-1", since_s=3600)))


def duty(**changes: Any) -> dict[str, Any]:
    never = {"last_run_s_ago": None, "last_took_s": 0.0, "next_run_s": None, "last_count": 0, "total": 0}
    return {**never, "failed_total": 0, "failed_in_a_row": 0, "error": None, **changes}


def with_duties(**duties: dict[str, Any]) -> dict[str, Any]:
    return answer(keeper={"ready": True, "account": account(), "snapshot": {"duties": duties}})


def test_each_duty_shows_its_last_run_its_duration_and_its_next_run() -> None:
    done = duty(last_run_s_ago=0.5, last_took_s=0.0021, next_run_s=0.5, last_count=3, total=40, failed_total=2)
    fails = duty(last_run_s_ago=2, last_took_s=0.004, next_run_s=8, total=7, failed_total=6, failed_in_a_row=4, error="no rights")
    assert duty_rows(with_duties(beat=done, prune=duty(), reclaim=fails)) == [
        ("beat", "0.5s ago", "2.1 ms", "in 0.5s", 3, 40, ""),
        ("prune", "", "", "", 0, 0, ""),
        ("reclaim", "2.0s ago", "4.0 ms", "in 8.0s", 0, 7, "failed 4 times in a row: no rights"),
    ]


def test_duties_are_shown_two_abreast_without_those_of_another_keeper() -> None:
    ran = duty(last_run_s_ago=0.5, last_took_s=0.0021, next_run_s=0.5)
    assert short_duty_rows(with_duties(beat=ran, theirs=duty(), prune=duty(next_run_s=8), wake=ran)) == [
        ("beat", "0.5s ago", "2.1 ms", "in 0.5s", "wake", "0.5s ago", "2.1 ms", "in 0.5s"),
        ("prune", "", "", "in 8.0s", "", "", "", ""),
    ]
    assert short_duty_rows(with_duties(theirs=duty())) == []
    assert short_duty_rows(answer(keeper={"ready": False, "account": account(), "snapshot": {}})) == []


def test_a_duty_that_fails_is_remarked_upon() -> None:
    status = with_duties(beat=duty(), reclaim=duty(failed_in_a_row=1, error="no rights\nCONTEXT: much more"))
    assert [line.text for line in remarks(status)] == ["the keeper's duty reclaim failed: no rights …"]


def test_a_pool_is_the_sum_of_its_shards_of_all_generations() -> None:
    shards = {"mail/0@1": snapshot(claimed_total=10, rate_per_s=1.6), "mail/0@2": snapshot(claimed_total=5, rate_per_s=2.6, running=3)}
    found = row(answer(pool(snapshots=shards)), {SHARD_PID: 2**20})
    assert (found["state"], found["shards"], found["busy"]) == ("ready", "1/1", "4/4")
    assert (found["claimed"], found["rate"], found["memory"]) == (15, "4/s", "1.0 MiB")


def test_where_executors_have_slots_these_are_what_tasks_take() -> None:
    assert row(answer(pool(snapshots={"mail/0@1": snapshot(running=9, slots=16)})))["busy"] == "9/16"


def test_a_pool_without_any_snapshot_shows_zeros() -> None:
    found = row(answer(pool(ready=0, snapshots={})))
    assert (found["state"], found["shards"], found["busy"], found["memory"]) == ("starting", "0/1", "0/0", "")


def test_starts_beyond_the_first_are_restarts() -> None:
    units = {"mail/0": {"starts": 3, "failures": 0}, "mail/1": {"starts": 1, "failures": 0}}
    assert row(answer(pool(account=account(units=units))))["restarts"] == 2


def test_a_quarantine_comes_before_all_else_and_names_the_command_that_says_why() -> None:
    status = answer(pool(account=account(circuit="quarantined", reason="exited with code 70"), snapshots={}))
    assert row(status)["state"] == "quarantined"
    (line,) = remarks(status)
    assert line.text == "mail is quarantined: its last process exited with code 70; more by: reproq-supervisor explain mail"


def test_a_lost_database_is_told_with_the_reason() -> None:
    down = {"up": False, "since_s": 12.3, "error": "connection refused"}
    status = answer(pool(snapshots={"mail/0@1": snapshot(database=down)}))
    assert row(status)["state"] == "no database"
    assert "external, down for 12s for 1 of 2 processes: connection refused" in head(status)


def test_a_first_connection_under_way_is_no_outage() -> None:
    found = answer(pool(snapshots={"mail/0@1": snapshot(database={"up": False, "since_s": 0.1, "error": None})}))
    assert "external, 1 of 2 processes are connecting" in head(found)


def test_what_an_operator_did_by_hand_is_remembered() -> None:
    lines = [line.text for line in remarks(answer(pool(override={"executors": 8, "left_s": 599.0}, paused=True)))]
    assert lines == [
        "mail has 8 executors by hand, for 9m59s more",
        "mail claims nothing, drained by hand; back to work by: reproq-supervisor resume mail",
    ]
    (line,) = remarks(answer(pool(override={"executors": 8, "left_s": None})))
    assert line.text == "mail has 8 executors by hand, until the daemon ends"


def test_endings_that_wait_for_somebodys_lock_are_named() -> None:
    shards = {
        "mail/0@1": snapshot(locked_endings={"count": 7, "first": [1, 2, 3, 4, 5]}),
        "mail/1@1": snapshot(locked_endings={"count": 1, "first": [9]}),
        "mail/2@1": snapshot(),
    }
    (line,) = remarks(answer(pool(snapshots=shards)))
    assert line.text.startswith("mail cannot write the end of 8 tasks (1, 2, 3, 4, 5, 9, …): a transaction that was left open")
    (line,) = remarks(answer(pool(snapshots={"mail/1@1": shards["mail/1@1"]})))
    assert line.text.startswith("mail cannot write the end of 1 task (9): ")


def test_what_postgresql_refuses_to_write_is_named_with_its_reason() -> None:
    shards = {
        "mail/0@1": snapshot(refused={"count": 7, "first": [1, 2, 3, 4, 5], "error": "42501: permission denied for table audit"}),
        "mail/1@1": snapshot(refused={"count": 0, "first": [], "error": None}),
    }
    (line,) = remarks(answer(pool(snapshots=shards)))
    assert line.text.startswith(
        "PostgreSQL refuses what mail writes of 7 tasks (1, 2, 3, 4, 5, …): 42501: permission denied for table audit;"
    )


def test_recycled_executors_are_counted_by_the_rule_they_met() -> None:
    shards = {
        "mail/0@1": snapshot(recycled={"tasks": 3, "rss": 0, "age": 1}),
        "mail/1@1": snapshot(recycled={"tasks": 2, "rss": 4, "age": 0}),
    }
    (line,) = recycled_lines(answer(pool(snapshots=shards)))
    assert line.text == "mail: executors recycled: 1 by age, 4 by rss, 5 by tasks"
    assert recycled_lines(answer()) == []


def test_a_refused_reload_stays_in_sight() -> None:
    last = {"ok": False, "what": "reload", "ended_s_ago": 61.0, "code": 1, "error": "mail/0 exited", "changed": False}
    assert "last change    reload, 1m1s ago, refused: mail/0 exited" in head(answer(last_reload=last))


def test_the_end_is_told_with_its_deadline() -> None:
    stopping = {"why": "SIGTERM", "phase": "shards", "quick": False, "left_s": 9.4}
    assert "SIGTERM; at most 9.4s more (shards)" in head(answer(state="stopping", stopping=stopping))


def test_what_has_stopped_is_not_said_to_be_starting() -> None:
    stopping = {"why": "SIGTERM", "phase": "database", "quick": False, "left_s": 9.4}
    gone = {"ready": False, "account": account(), "snapshot": {}}
    status = answer(pool(ready=0, snapshots={}), state="stopping", stopping=stopping, children=[], keeper=gone)
    assert row(status)["state"] == "stopped"
    assert "keeper         stopped" in head(status)
    assert "nobody is connected any more" in head(status)
    assert row(answer(pool(ready=0), stopping=stopping))["state"] == "stopping"


def test_every_process_is_listed_with_its_familys_memory() -> None:
    (found,) = process_rows(answer(), {SHARD_PID: 3 * 2**19})
    assert dict(zip(PROCESS_COLUMNS, found, strict=True)) == {
        "process": "mail/0",
        "pid": SHARD_PID,
        "state": "ready",
        "generation": 1,
        "up": "59s",
        "memory": "1.5 MiB",
        "": "",
    }
