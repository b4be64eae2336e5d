"""A page of the documentation as steps: what it tells the reader to type, which files to write, and what it says will be seen.

A fenced block is one of these, by its language:

    console       commands after `$ ` (more lines of one after `> `), each followed by what it prints; `# exit code N` at the end of a
                  command says how it leaves. Run by tests/e2e/test_documentation.py, in order, in a folder of their own.
    sql           statements for the page's database, run there.
    python, yaml  with `# path/of/file` as the first line: a file to write; with `# path/of/file, at the end`: what to add to it. Without: a
                  fragment, which must compile, or be a valid configuration.
    sh            with `# path/of/file.sh` as the first line: a file to write.
    text, none    for the eye.

Anything that could be typed (sh, bash, ini ...) must be one of the above, or say why it is not run, in the comment before the block:
`<!-- not run: it needs systemd -->`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)\s*$")
_REASON = re.compile(r"<!-- not run: (.+) -->")
_FILE = re.compile(r"^# ([\w./-]+\.(?:py|yaml|sh))(, at the end)?$")
_EXIT = re.compile(r"\s+# exit code (\d+)$")
_FOR_THE_EYE = frozenset({"text", "", "mermaid"})


class PageError(AssertionError):
    """A block is neither run nor excused."""


@dataclass(frozen=True)
class Block:
    """One fenced block; *line* is that of its fence, from 1."""

    language: str
    text: str
    line: int
    reason: str | None = None


@dataclass(frozen=True)
class Command:
    """A command line, how it should end, and what it should print (None: not shown)."""

    text: str
    line: int
    exit_code: int = 0
    output: str | None = None


@dataclass(frozen=True)
class NewFile:
    """A file that the reader writes, or adds to."""

    name: str
    text: str
    line: int
    adds: bool = False


@dataclass(frozen=True)
class Statement:
    """SQL for the page's database."""

    text: str
    line: int


@dataclass(frozen=True)
class Fragment:
    """A piece of Python or of a configuration."""

    language: str
    text: str
    line: int


Step = Command | NewFile | Statement | Fragment


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks, in order."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    opened: tuple[re.Match[str], int, str | None] | None = None
    said = ""  # the last line with text before the block
    inside: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            reason = _REASON.search(said)
            opened, inside = (fence, number, reason[1] if reason else None), []
        elif opened is None:
            said = line if line.strip() else said
        elif fence and fence["fence"] == opened[0]["fence"] and not fence["language"]:
            found.append(Block(opened[0]["language"], "\n".join(inside), opened[1], opened[2]))
            opened, said = None, ""
        else:
            inside.append(line.removeprefix(opened[0]["indent"]))
    if opened is not None:
        raise PageError(f"{page.name}:{opened[1]}: expected the end of the block, found the end of the page")
    return found


def steps_of(page: Path) -> list[Step]:
    """Return what the page asks for.

    Raises:
      PageError: a block is neither run nor excused.
    """
    steps: list[Step] = []
    for block in blocks_of(page):
        if block.reason is not None or block.language in _FOR_THE_EYE:
            continue
        named = _FILE.match(block.text.partition("\n")[0])
        match block.language:
            case "console":
                steps += _commands(page, block)
            case "sql":
                steps.append(Statement(block.text, block.line))
            case "python" | "yaml" | "sh" if named:
                steps.append(_new_file(block, named))
            case "python" | "yaml":
                steps.append(Fragment(block.language, block.text, block.line))
            case other:
                raise PageError(f"{page.name}:{block.line}: expected a block that is run, or <!-- not run: why --> before it, got {other}")
    return steps


def _new_file(block: Block, named: re.Match[str]) -> NewFile:
    text = block.text.partition("\n")[2] if named[2] else block.text
    return NewFile(named[1], text + "\n", block.line, adds=bool(named[2]))


def _commands(page: Path, block: Block) -> list[Command]:
    found: list[Command] = []
    typed: list[str] = []
    printed: list[str] = []
    begins = block.line

    def end() -> None:
        if typed:
            text = "\n".join(typed)
            code = _EXIT.search(text)
            output = "\n".join(printed) if printed else None
            found.append(Command(_EXIT.sub("", text), begins, int(code[1]) if code else 0, output))

    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            end()
            typed, printed, begins = [line[2:]], [], number
        elif f"{line} ".startswith("> ") and not printed:
            typed.append(line[2:])
        else:
            printed.append(line)
    end()
    if not found or not block.text.startswith("$ "):
        raise PageError(f"{page.name}:{block.line}: expected a command after `$ ` as the first line of a console block")
    return found


_NUMBER = r"\d+(?:\.\d+)?"


def looks_like(shown: str, printed: str) -> bool:
    """Answer whether *printed* has the shape that the page shows.

    A number stands for any number, blanks for any blanks, `...` for anything in its line, and a line of nothing but `...` for any lines.
    """
    pattern = ""
    for line in shown.rstrip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += r"\s*".join(map(_shape, line.split())).strip() + r"[ \t]*\n"
    return re.fullmatch(pattern, "".join(line.strip() + "\n" for line in printed.rstrip().splitlines())) is not None


def _shape(word: str) -> str:
    """Return the pattern of one word; what comes apart at blanks may be put together in another width."""
    parts = re.split(rf"(\.\.\.|{_NUMBER})", word)
    return "".join("[^\n]*" if part == "..." else _NUMBER if re.fullmatch(_NUMBER, part) else re.escape(part) for part in parts)
