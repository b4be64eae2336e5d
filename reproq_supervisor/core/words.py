"""Numbers in sentences."""


def counted(count: int, noun: str) -> str:
    """Return the number with its noun, which is a plural but after 1: `1 task`, `0 tasks`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
