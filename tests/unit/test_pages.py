"""The reading of documentation pages, and what counts as the output that they show."""

from pathlib import Path

import pytest

from tests.support.pages import Command, Fragment, NewFile, PageError, Statement, looks_like, steps_of


def steps(tmp_path: Path, text: str) -> list[object]:
    (tmp_path / "page.md").write_text(text)
    return list(steps_of(tmp_path / "page.md"))


def test_a_page_becomes_steps_in_their_order(tmp_path: Path) -> None:
    page = """\
```python
# a/b.py
x = 1
```
```console
$ one --x  # exit code 3
seen
$ two <<'EOF'
> more
>
> EOF
```
```sql
SELECT 1
```
```python
x = 2
```
```yaml
# c.yaml, at the end
d: 1
```
```text
for the eye
```
"""
    assert steps(tmp_path, page) == [
        NewFile("a/b.py", "# a/b.py\nx = 1\n", 1),
        Command("one --x", 6, 3, "seen"),
        Command("two <<'EOF'\nmore\n\nEOF", 8),
        Statement("SELECT 1", 13),
        Fragment("python", "x = 2", 16),
        NewFile("c.yaml", "d: 1\n", 19, adds=True),
    ]


@pytest.mark.parametrize("language", ["sh", "bash", "ini", "shell"])
def test_what_is_neither_run_nor_excused_is_refused(tmp_path: Path, language: str) -> None:
    block = f"```{language}\nmake tea\n```\n"
    with pytest.raises(PageError, match=rf"page.md:1: expected .* got {language}"):
        steps(tmp_path, block)
    assert steps(tmp_path, f"<!-- not run: it needs a kettle -->\n{block}") == []


@pytest.mark.parametrize("text", ["```console\nno prompt\n```\n", "```console\n```\n", "```console\n$ never closed\n"])
def test_a_block_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PageError):
        steps(tmp_path, text)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("took 0.1 s", "took 12.34 s"),
        ("a  b", "a b  "),
        ("up ..., ready", "up 3m2s, ready"),
        ("first\n...\nlast", "first\nlast"),
        ("first\n...\nlast", "first\nb\nc\nlast\n"),
        ("  indented", "indented"),
        ("2026-11-27 18:23:03.784+00:00", "2027-01-01 00:00:00.1+00:00"),
    ],
)
def test_output_of_the_same_shape(shown: str, printed: str) -> None:
    assert looks_like(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("ready", "starting"), ("one", "one\ntwo"), ("one\ntwo", "one"), ("a 1", "a x"), ("up ..., ready", "up 1s"), ("a.b", "a-b")],
)
def test_output_of_another_shape(shown: str, printed: str) -> None:
    assert not looks_like(shown, printed)
