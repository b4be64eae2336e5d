"""Lines: closed keys, no secrets, one line each, and a reader that stopped never stops us."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_supervisor.core.events import Event, Level
from reproq_supervisor.core.supervision import events
from reproq_supervisor.core.supervision.events import ChildEvent, ProcessExited, SupervisorStopping
from reproq_supervisor.telemetry.keys import KEYS, REDACTED, presentable
from reproq_supervisor.telemetry.lines import LogFormat, render
from reproq_supervisor.telemetry.log import MAX_LINE_BYTES, Log, choose_format
from reproq_supervisor.telemetry.records import record_of

AT = "2026-01-02T03:04:05.678Z"
EXITED = ProcessExited("mail/0", 7, 2, 'exited with code 70: it\'s = "odd"', "abnormal")
EVENTS = [each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event) and each is not Event]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_every_event_has_a_name_and_only_listed_keys(event: type[Event]) -> None:
    noun, _, verb = event.name.partition(".")
    assert noun
    assert verb
    if event is not ChildEvent:
        assert {field.name for field in fields(event)} <= KEYS


def test_a_record_is_the_event_with_time_and_level() -> None:
    assert record_of(SupervisorStopping("received TERM", False), AT) == {
        "at": AT,
        "level": "info",
        "name": "supervisor.stopping",
        "why": "received TERM",
        "quick": False,
    }


def test_a_childs_event_is_flattened_and_cut_to_listed_keys() -> None:
    event = ChildEvent("mail/0", 7, {"name": "executor.exited", "pid": 9, "status": -9, "payload": "x", "level": "debug", "at": "never"})
    assert record_of(event, AT) == {"at": AT, "level": "warning", "name": "executor.exited", "child": "mail/0", "pid": 9, "status": -9}


@pytest.mark.parametrize(
    "key", ["args", "KWARGS", "payload_json", "return_json", "spec_json", "stdout", "db_password", "authToken", "client_secret", "API_KEY"]
)
def test_secret_keys_are_redacted_at_any_depth(key: str) -> None:
    assert presentable("why", {"inner": [{key: "hidden"}]}) == {"inner": [{key: REDACTED}]}


def test_passwords_in_connection_strings_are_masked_in_any_text() -> None:
    shown = presentable("error", "cannot reach postgresql://me:hunter2@db/x nor host=db password=hunter2")
    assert "hunter2" not in shown


def test_json_lines_are_json() -> None:
    assert json.loads(render(record_of(EXITED, AT), LogFormat.JSON))["cause"] == EXITED.cause


def test_logfmt_quotes_what_would_be_ambiguous() -> None:
    line = render(record_of(EXITED, AT), LogFormat.LOGFMT)
    assert line.startswith(f"at={AT} level=info name=process.exited child=mail/0 pid=7 generation=2 cause=")
    assert r'cause="exited with code 70: it' in line


def test_a_person_sees_the_time_of_day_the_name_and_the_fields() -> None:
    line = render(record_of(SupervisorStopping("received TERM", True), AT), LogFormat.HUMAN)
    assert line.split() == ["03:04:05.678", "supervisor.stopping", 'why="received', 'TERM"', "quick=true"]


@given(text=st.text(), log_format=st.sampled_from(LogFormat))
def test_no_text_breaks_a_line_or_reaches_the_terminal_raw(text: str, log_format: LogFormat) -> None:
    record = {"at": AT, "level": "info", "name": "x.y", "why": text}
    line = render(record, log_format)
    assert len(line.splitlines()) == 1
    if log_format is not LogFormat.JSON:
        assert line.isprintable()


def test_the_format_follows_the_reader_unless_it_is_named() -> None:
    assert choose_format("auto", is_terminal=True) is LogFormat.HUMAN
    assert choose_format("auto", is_terminal=False) is LogFormat.LOGFMT
    assert choose_format("json", is_terminal=True) is LogFormat.JSON


class Pipe:
    """A pipe whose reader may stop reading."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        found = b""
        while True:
            try:
                data = os.read(self.reader, 65536)
            except BlockingIOError:
                return found
            if not data:
                return found
            found += data

    def close(self) -> None:
        os.close(self.writer)
        os.close(self.reader)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def record(number: int, level: Level = Level.INFO, why: str = "") -> dict[str, object]:
    return {"at": AT, "level": level.value, "name": "x.happened", "pid": number, "why": why}


def test_a_reader_that_stopped_never_blocks_us_and_is_told_what_it_missed(pipe: Pipe) -> None:
    log = Log(pipe.writer, LogFormat.LOGFMT)
    for number in range(3000):
        log.write(record(number, why="x" * 100))
    text = b""
    while data := pipe.read():
        text += data
        log.flush()
    lines = text.decode().splitlines()
    assert lines[0].split()[3] == "pid=0"
    assert "name=log.dropped dropped=" in lines[-1]
    dropped = int(lines[-1].rpartition("=")[2])
    assert len(lines) - 1 + dropped == 3000


def test_a_line_is_never_longer_than_a_pipe_takes_at_once(pipe: Pipe) -> None:
    Log(pipe.writer, LogFormat.JSON).write({**record(1), **dict.fromkeys(("why", "reason", "cause", "error"), "ä" * 1900)})
    line = pipe.read()
    assert len(line) <= MAX_LINE_BYTES
    assert json.loads(line)["pid"] == 1


def test_what_is_below_the_level_is_not_written(pipe: Pipe) -> None:
    log = Log(pipe.writer, LogFormat.LOGFMT, "warning")
    log.write(record(1, Level.INFO))
    log.write(record(2, Level.ERROR))
    assert b"pid=2" in pipe.read()


def test_settings_and_environment_choose_format_and_level(pipe: Pipe) -> None:
    log = Log(pipe.writer, LogFormat.HUMAN)
    log.configure({"format": "logfmt", "level": "error"}, {"REPROQ_LOG_FORMAT": "json"})
    log.write(record(1, Level.WARNING))
    log.write(record(2, Level.ERROR))
    assert json.loads(pipe.read())["pid"] == 2


def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    spare, pipe.reader = pipe.reader, os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    log = Log(pipe.writer, LogFormat.LOGFMT)
    log.write(record(1))
    assert log._dropped == 1, "counted, to be told when somebody reads"


def test_a_file_that_was_moved_away_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        log = Log(fd, LogFormat.LOGFMT)
        log.write(record(1))
        path.rename(tmp_path / "log.1")
        log.write(record(2))
        log.reopen()
        log.write(record(3))
    finally:
        os.close(fd)
    assert "pid=3" in path.read_text()
    assert (tmp_path / "log.1").read_text().count("\n") == 2
