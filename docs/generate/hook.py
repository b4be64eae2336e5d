"""The hook of mkdocs: adds the pages that are made from the program when the manual is built."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # mkdocs loads a hook by its path

from docs.generate.commands import commands_page
from docs.generate.configuration import configuration_page

PAGES = {"commands.md": commands_page, "configuration.md": configuration_page}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that are written by hand."""
    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    return files
