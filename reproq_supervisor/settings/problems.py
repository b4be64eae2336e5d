"""What is wrong with a configuration, in one shape for every output."""

from dataclasses import asdict, dataclass
from typing import Any

from reproq_supervisor.core.errors import ReproqError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in the configuration.

    Attributes:
      path: dotted key (`pools.mail.executors.max`), empty for the file as a whole.
      line, column: counted from 1; None when the value did not come from the file.
      message: what was expected and what was found. Never holds a secret.
      hint: what to do about it, or None.
    """

    path: str
    message: str
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def as_message(self) -> dict[str, Any]:
        """Return the JSON form that crosses processes."""
        return asdict(self)

    def render(self, source: str) -> str:
        """Return one line for people: `file:line:column: key: message (hint)`."""
        place = source if self.line is None else f"{source}:{self.line}:{self.column}"
        subject = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {subject}{self.message}{hint}"


class ConfigError(ReproqError):
    """The configuration cannot be used; nothing was changed. Holds every problem found, in the order of the file."""

    exit_code = 78

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(problem.render(self.source) for problem in self.problems)
