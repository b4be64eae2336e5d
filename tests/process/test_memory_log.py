"""The line about memory, from a real family of processes; a measurement that hangs holds nobody up."""

import json
import os
import re
import signal
from collections.abc import Callable

from reproq_supervisor.process.memory_report import report
from reproq_supervisor.supervisor.memory_log import MemoryLog
from reproq_supervisor.supervisor.orphans import Orphans
from tests.support.eventually import eventually
from tests.support.supervised import Supervised, fake

Make = Callable[..., Supervised]


def test_a_supervisor_logs_what_each_kind_of_process_takes(supervised: Make) -> None:
    daemon = supervised({"mail": fake(shards=2)}, env={"REPROQ_MEMORY_LOG_INTERVAL": "1"}).start()
    line = eventually(lambda: re.findall(r"name=memory\.measured rss_bytes=(\d+) pss_bytes=(\d+) kinds=(.*)", daemon.log), timeout=60)[-1]
    kinds = json.loads(json.loads(line[2]))
    assert kinds["supervisor"]["processes"] == 1
    assert sum(each["processes"] for each in kinds.values()) >= 3
    assert 0 < int(line[1]) <= int(line[0])
    assert int(line[0]) == sum(each["rss_bytes"] for each in kinds.values())


def test_without_the_variable_there_is_no_such_line(supervised: Make) -> None:
    daemon = supervised().start()
    daemon.signal(signal.SIGTERM)
    daemon.wait_exit()
    assert "memory.measured" not in daemon.log


def test_a_family_that_is_gone_has_no_memory() -> None:
    assert report(2**22 + 1) == {"type": "memory", "rss_bytes": 0, "pss_bytes": 0, "kinds": {}}


def test_one_that_hangs_is_killed_when_the_next_is_due() -> None:
    log = MemoryLog({"REPROQ_MEMORY_LOG_INTERVAL": "10s"}, Orphans())
    pidfd = log.start_if_due(1000.0)
    assert pidfd is not None
    signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
    assert log.start_if_due(1005.0) is None, "it has time"
    assert log.start_if_due(1010.0) is None, "it is killed first"
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert log.collect() is None
    again = log.start_if_due(1020.0)
    assert again is not None
    log.kill()
    os.waitid(os.P_PIDFD, again, os.WEXITED | os.WNOWAIT)
    log.collect()
