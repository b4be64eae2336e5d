"""One value in a file that a person wrote: everything else, comments included, stays as it is."""

import json
import re

_YAML_KEY = re.compile(r"^(?P<indent>[ ]+)allowed_task_modules[ ]*:.*(?:\n(?P=indent)(?:[ ]+.*|-.*))*", re.MULTILINE)
_YAML_SECTION = re.compile(r"^worker[ ]*:[ ]*(#.*)?$", re.MULTILINE)
_TOML_KEY = re.compile(r"^allowed_task_modules[ ]*=[ ]*(\[[^\]]*\]|.*)$", re.MULTILINE)
_TOML_SECTION = re.compile(r"^\[worker\][ ]*(#.*)?$", re.MULTILINE)


def with_allowlist(text: str, prefixes: list[str], *, is_toml: bool) -> str:
    """Return *text* with these prefixes as `worker.allowed_task_modules`.

    Raises:
      ValueError: it has no section `worker` in the usual form, so that only a person can say where they belong.
    """
    value = json.dumps(prefixes)
    key, section = (_TOML_KEY, _TOML_SECTION) if is_toml else (_YAML_KEY, _YAML_SECTION)
    line = f"allowed_task_modules = {value}" if is_toml else f"allowed_task_modules: {value}"
    found = key.search(text)
    if found is not None:
        indent = "" if is_toml else found["indent"]
        return f"{text[: found.start()]}{indent}{line}{text[found.end() :]}"
    found = section.search(text)
    if found is None:
        raise ValueError(f"expected a section worker, found none; write into it: {line}")
    return f"{text[: found.end()]}\n{'' if is_toml else '  '}{line}{text[found.end() :]}"
