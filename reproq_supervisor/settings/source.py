"""The bytes of a configuration file, as text or as the one problem that stands in the way."""

import os
import stat

from reproq_supervisor.settings.problems import ConfigError, Problem

MAX_FILE_BYTES = 2**20


def read_source(config_path: str) -> str:
    """Return the text of the file. A pipe is refused: a reload could not read it again.

    Raises:
      ConfigError: there is no such file, it cannot be read, is too large or not UTF-8.
    """
    content = _read_bytes(config_path)
    if len(content) > MAX_FILE_BYTES:
        raise _refuse(config_path, f"expected at most {MAX_FILE_BYTES // 2**20} MiB, got more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        problem = Problem("", f"expected UTF-8, got the byte 0x{content[error.start]:02x}", line, column)
        raise ConfigError(config_path, (problem,)) from None


def _read_bytes(config_path: str) -> bytes:
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would hold up a reload for ever.
        descriptor = os.open(config_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refuse(config_path, "expected a file, got something else")
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _refuse(config_path, "expected a file, found none", "reproq-supervisor init writes one") from None
    except IsADirectoryError:
        raise _refuse(config_path, "expected a file, got a folder") from None
    except OSError as error:
        raise _refuse(config_path, f"expected a readable file: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise _refuse(config_path, f"expected the name of a file: {error}") from error


def _refuse(config_path: str, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError(config_path, (Problem("", message, hint=hint),))
