"""The hook of mkdocs: adds the pages that are made from the program when the manual is built, and finds the decisions."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # mkdocs loads a hook by its path

from docs.generate.commands import commands_page
from docs.generate.configuration import configuration_page

PAGES = {"commands.md": commands_page, "configuration.md": configuration_page}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation, in the order of their numbers."""
    decisions = [f"adr/{path.name}" for path in sorted((Path(config.docs_dir) / "adr").glob("*.md"))]
    design = next(section["Design"] for section in config.nav or [] if "Design" in section)
    next(entry for entry in design if "Decisions" in entry)["Decisions"] = decisions
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that are written by hand."""
    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files
