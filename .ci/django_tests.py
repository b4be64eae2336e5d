"""Fetch the tests that Django ships for its tasks framework, of the version that is installed here, and print the folder they are in.

    .venv/bin/python .ci/django_tests.py FOLDER

They come from the source distribution, for wheels have no tests. Exit code 3: this Django has none, for its framework is the backport,
which ships no tests at all.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django


def fetch(folder: Path, version: str) -> Path:
    """Return the folder `tests` of this version below *folder*, with what the framework's tests need of it."""
    tests = folder / f"django-{version}" / "tests"
    if not tests.exists():
        with tempfile.TemporaryDirectory() as downloads:
            download = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "django", f"django=={version}"]
            subprocess.run([sys.executable, "-m", "pip", *download, "--dest", downloads], check=True, stdout=sys.stderr)
            (archive,) = Path(downloads).iterdir()
            unpacked = Path(downloads, "unpacked")
            with tarfile.open(archive) as file:
                members = [each for each in file.getmembers() if "/tests/tasks/" in each.name and each.isfile()]
                file.extractall(unpacked, members, filter="data")
            (top,) = unpacked.iterdir()
            tests.parent.mkdir(parents=True, exist_ok=True)
            (top / "tests").rename(tests)
    return tests


if __name__ == "__main__":
    if django.VERSION < (6, 0):
        sys.exit(3)
    print(fetch(Path(sys.argv[1]).resolve(), django.get_version()))
