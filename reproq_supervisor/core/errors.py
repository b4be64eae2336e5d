"""The root of the errors that a person is told about, and what the command's exit code says of them.

Subclasses split by what the reader must do: edit a file (78), try again (75), start something (69). Their message names the object,
what was expected, what was found and what to do.
"""

from typing import ClassVar


class ReproqError(Exception):
    """Something that a person can act on; printed without a traceback."""

    exit_code: ClassVar[int] = 1
