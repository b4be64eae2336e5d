"""What the documents say exists: links lead somewhere, targets of make and commands are real, and none is forgotten."""

import re

from reproq_supervisor.cli.commands import SECTIONS
from tests.architecture.source import ROOT

_LINK = re.compile(r"\]\(([^)#][^)#]*)(?:#[^)]*)?\)")
_ANCHOR = re.compile(r"\]\(#([^)]+)\)")
_TARGET = re.compile(r"(?:^\s*|`)make ([a-z][a-z0-9-]+)", re.MULTILINE)


def test_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in documents
        for link in _LINK.findall(document.read_text())
        if "://" not in link and not (document.parent / link).exists()
    ]
    assert not dead


def test_the_table_of_contents_names_headings() -> None:
    readme = (ROOT / "README.md").read_text()
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^##+ (.+)$", readme, re.MULTILINE)}
    assert set(_ANCHOR.findall(readme)) == headings


def test_the_readme_lists_every_command_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (?:daemon|set-up|tasks) \| (.+) \|$", readme, re.MULTILINE)
    listed = {name.split()[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert listed == {name for commands in SECTIONS.values() for name in commands}


def test_every_target_of_make_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", ".ci/run", "setup.cfg"):
        assert set(_TARGET.findall((ROOT / document).read_text())) <= targets, document
