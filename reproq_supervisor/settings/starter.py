"""The file that `init` writes."""

from importlib.resources import files

from reproq_supervisor.settings.model import MODULE_NAME

_PLACEHOLDER = "myapp.tasks"


def starter_text(module: str) -> str:
    """Return a short, commented, valid configuration for the tasks in *module*.

    Raises:
      ValueError: *module* is not the dotted name of one.
    """
    if not MODULE_NAME.fullmatch(module):
        raise ValueError(f"expected the dotted name of a module, got {module!r}")
    return files("reproq_supervisor.settings").joinpath("starter.yaml").read_text("utf-8").replace(_PLACEHOLDER, module)
