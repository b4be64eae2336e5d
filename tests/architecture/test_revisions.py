"""A file of the schema that changes says so in its revision; otherwise databases that have it keep the old one.

`revisions.txt` beside this file has a line for each, with the digest of what it says. A change is entered by

    python -m tests.architecture.test_revisions

which refuses it while the revision is the one that is entered. Two branches that raised the same revision meet in the same line.
"""

import hashlib
import sys
from importlib import resources
from pathlib import Path

from reproq_supervisor.store.schema.files import FileStep

LIST = Path(__file__).with_name("revisions.txt")


def present() -> dict[str, tuple[int, str]]:
    """Return (revision, digest) of every file by its name."""
    found = {}
    for entry in sorted((resources.files("reproq_supervisor.store") / "migrations").iterdir(), key=lambda each: each.name):
        if entry.name.endswith(".sql"):
            text = entry.read_text()
            found[entry.name] = (FileStep(0, entry.name, text).revision, hashlib.sha256(text.encode()).hexdigest()[:16])
    return found


def entered() -> dict[str, tuple[int, str]]:
    """Return what the list says."""
    lines = (line.split() for line in LIST.read_text().splitlines()) if LIST.exists() else ()
    return {name: (int(revision), digest) for name, revision, digest in lines}


def test_what_changed_has_another_revision() -> None:
    assert present() == entered(), "raise the `-- revision` of what changed, then: python -m tests.architecture.test_revisions"


def test_no_two_files_have_one_number() -> None:
    numbers = [name.partition("_")[0] for name in present()]
    assert len(set(numbers)) == len(numbers)


def enter() -> None:
    """Write the list; refuse a file that changed under the revision that is entered."""
    old, new = entered(), present()
    same = [name for name, (revision, digest) in new.items() if name in old and old[name][1] != digest and revision <= old[name][0]]
    if same:
        sys.exit(f"raise the `-- revision` of {', '.join(same)}: it changed, and databases have that revision")
    LIST.write_text("".join(f"{name} {revision} {digest}\n" for name, (revision, digest) in new.items()))


if __name__ == "__main__":
    enter()
