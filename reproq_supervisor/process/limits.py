"""Resource limits of this process."""

import resource


def allow_all_descriptors() -> None:
    """Raise our limit of open descriptors as far as it goes; children inherit it. `select` fails past 1023: use `poll`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
