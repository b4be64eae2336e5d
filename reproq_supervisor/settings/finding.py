"""A rule about settings that does not hold."""

from dataclasses import dataclass

from reproq_supervisor.settings.document import Path


@dataclass(frozen=True, slots=True)
class Finding:
    """What to complain about, once its place in the file is known.

    Attributes:
      path: the value to complain about.
      uses: every value the rule looked at; when one of them is itself invalid the finding means nothing.
    """

    path: Path
    uses: tuple[Path, ...]
    message: str
    hint: str | None = None
