"""An application that imports nothing: what remains of the memory is the product's own."""


def noop() -> None:
    """Do nothing."""
