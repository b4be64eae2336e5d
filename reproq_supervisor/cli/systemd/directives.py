"""One line of a unit file, and which systemd knows it: an older one is given nothing that it would complain about."""

from typing import NamedTuple

OLDEST = 249
NOTIFY_RELOAD_SINCE = 253

# The directives of ours that came after the oldest systemd; every other is as old as that.
SINCE = {
    "RestartMaxDelaySec": 254,
    "RestartSteps": 254,
}


class Directive(NamedTuple):
    """`name=value`, and what a person who reads the file should know about it."""

    name: str
    value: str
    why: str = ""

    def is_known_to(self, systemd: int) -> bool:
        """Answer whether a systemd of this version understands it."""
        return systemd >= SINCE.get(self.name, OLDEST)

    def render(self) -> str:
        """Return the lines of the file."""
        comment = "".join(f"# {line}\n" for line in self.why.splitlines())
        return f"{comment}{self.name}={self.value}\n"
