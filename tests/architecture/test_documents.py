"""What the documents say exists: links lead somewhere, targets of make and commands are real, and none is forgotten."""

import re
from pathlib import Path

import pytest

from docs.generate.commands import commands_page, leaf_commands
from docs.generate.configuration import configuration_page, documented_keys
from reproq_supervisor.cli.commands import SECTIONS
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.schema import leaf_paths
from tests.architecture.source import ROOT
from tests.support.pages import Fragment, steps_of

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Made when the manual is built: docs/generate.
GENERATED = {ROOT / "docs" / "commands.md", ROOT / "docs" / "configuration.md"}

_LINK = re.compile(r"\]\(([^)#][^)#]*)(?:#[^)]*)?\)")
_ANCHOR = re.compile(r"\]\(#([^)]+)\)")
_TARGET = re.compile(r"(?:^\s*|`)make ([a-z][a-z0-9-]+)", re.MULTILINE)


def test_links_between_documents_lead_somewhere() -> None:
    dead = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in (*PAGES, ROOT / "CHANGELOG.md")
        for link in _LINK.findall(document.read_text())
        if "://" not in link and not (document.parent / link).exists() and (document.parent / link).resolve() not in GENERATED
    ]
    assert not dead


def test_the_table_of_contents_names_headings() -> None:
    readme = (ROOT / "README.md").read_text()
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^##+ (.+)$", readme, re.MULTILINE)}
    assert set(_ANCHOR.findall(readme)) == headings


def test_the_readme_lists_every_command_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (?:daemon|set-up|tasks|queues|schedules) \| (.+) \|$", readme, re.MULTILINE)
    listed = {name.split()[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert listed == {name for commands in SECTIONS.values() for name in commands}


def test_every_target_of_make_that_is_mentioned_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", ".ci/run", "setup.cfg"):
        assert set(_TARGET.findall((ROOT / document).read_text())) <= targets, document


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_lets_the_reader_type_is_run_or_says_why_not(page: Path, tmp_path: Path) -> None:
    """The commands themselves are run by tests/e2e/test_documentation.py; fragments are read here."""
    for step in steps_of(page):
        match step:
            case Fragment("python", text, line):
                assert compile(text, f"{page.name}:{line}", "exec")
            case Fragment("yaml", text):
                (tmp_path / "fragment.yaml").write_text(text)
                assert load(str(tmp_path / "fragment.yaml")).settings


def test_the_manual_has_every_setting() -> None:
    leaves = {".".join(path) for path in leaf_paths()}
    documented = documented_keys()
    covered = {leaf for leaf in leaves if any(leaf == key or leaf.startswith(f"{key}.") for key in documented)}
    assert covered == leaves
    assert all(any(leaf == key or leaf.startswith(f"{key}.") for leaf in leaves) for key in documented)


def test_the_manual_says_what_each_setting_may_be() -> None:
    rows = [line.split(" | ") for line in configuration_page().splitlines() if line.startswith("| `")]
    kinds = {row[0].removeprefix("| ").strip("`"): row[1] for row in rows}
    assert (kinds["timeout"], kinds["rss"], kinds["listen"]) == ("duration", "size", "text or `null`")
    assert kinds["mode"] == "`process`, `thread`, `async`"
    assert "size" not in kinds["cpus"]
    assert all(len(row) == 5 and row[4].strip(" |") for row in rows), "every setting has a text"


def test_the_manual_has_every_command_with_an_example() -> None:
    page = commands_page()
    for name, _ in leaf_commands():
        section = page.partition(f"\n### {name}\n")[2].partition("\n###")[0]
        assert f"```sh\nreproq-supervisor {name}" in section, name
