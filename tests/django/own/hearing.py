"""What executors log, logged once more by the process of the tests, whose `assertLogs` hear only that."""

import json
import logging
from pathlib import Path


class Appending(logging.FileHandler):
    """Writes each record as a line of JSON, so that its traceback stays with it."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps([record.name, record.levelno, super().format(record)])


class Hearing:
    """Says again what was appended to *path* since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = 0

    def say(self) -> None:
        lines = self._path.read_text().splitlines()
        for line in lines[self._said :]:
            name, level, text = json.loads(line)
            logging.getLogger(name).log(level, "%s", text)
        self._said = len(lines)
