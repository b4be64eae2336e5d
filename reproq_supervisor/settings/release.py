"""Names the release of an application: the same name means the same source files, so that a reload after a deployment knows of it.

Standard library only. Files are looked at, never read: path, size and time of change are enough, and a deployment changes them.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

MAX_FILES = 50_000
"""What is beyond is not looked at: a tree of that size is not one application's."""

_NOT_CODE = frozenset({"__pycache__", "node_modules"})


def release_of(app: Mapping[str, Any]) -> str:
    """Return the name of the release that the `app` settings lead to now.

    It covers the top-level packages of what is preloaded and of the tasks that are allowed, found as the nursery finds them. A symbolic
    link counts as what it points to, so that switching `current` is a new release.
    """
    digest = hashlib.sha256()
    for count, (path, facts) in enumerate(_files(app)):
        if count >= MAX_FILES:
            break
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _files(app: Mapping[str, Any]) -> Iterator[tuple[str, os.stat_result]]:
    paths = [os.path.abspath(path) for path in app.get("path") or []]  # noqa: PTH100 - as the nursery does
    for name in sorted(_top_level_names(app)):
        spec = PathFinder.find_spec(name, [*paths, *sys.path])
        if spec is None:
            continue
        roots = list(spec.submodule_search_locations or ()) or ([spec.origin] if spec.origin else [])
        for root in roots:
            yield from _below(os.path.realpath(root))


def _top_level_names(app: Mapping[str, Any]) -> set[str]:
    named = [*(app.get("preload") or []), *(app.get("allowed_task_modules") or []), app.get("django_settings_module") or ""]
    # "*" allows anything, which names nothing.
    return {name.partition(".")[0] for name in named} - {"", "*"}


def _below(root: str) -> Iterator[tuple[str, os.stat_result]]:
    if not Path(root).is_dir():
        yield from _look(root)
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _NOT_CODE and not name.startswith("."))
        for name in sorted(names):
            if name.endswith((".py", ".so")):
                yield from _look(str(Path(folder, name)))


def _look(path: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        yield path, os.stat(path)  # noqa: PTH116 - thousands of them
    except OSError:
        return  # gone while we looked, or not a file
