"""Make a virtual environment with this checkout in it, unless it is there already.

    python3 .ci/venv.py FOLDER EXTRA... [REQUIREMENT...]

A requirement is told by its sign of comparison, as in `Django==6.0.*`.
Safe to run twice at once, after an interruption, in a moved checkout and after an upgrade of Python: a stamp inside the environment says
what it was made from. Runs on any Python 3, to be able to say what is missing.
"""

import fcntl
import hashlib
import os
import subprocess
import sys

OLDEST = (3, 11)
SOURCES = ("setup.cfg", "pyproject.toml")


def fingerprint(extra):
    """Digest what an environment with *extra* (or a requirement) depends on: the declared dependencies, the interpreter and the place."""
    digest = hashlib.sha256()
    for source in SOURCES:
        with open(source, "rb") as file:
            digest.update(file.read())
    for part in (sys.version, sys.base_prefix, os.getcwd(), extra):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def is_ready(folder, wanted):
    """Answer whether the environment in *folder* was made from what is wanted, and its Python still starts."""
    try:
        with open(os.path.join(folder, ".made-from")) as file:
            made_from = file.read().split()
        return set(wanted) <= set(made_from) and subprocess.call([python_of(folder), "-c", ""]) == 0
    except OSError:
        return False


def python_of(folder):
    return os.path.join(folder, "bin", "python")


def make(folder, extras, requirements, wanted):
    """Create or mend the environment; the stamp comes last."""
    stamp = os.path.join(folder, ".made-from")
    try:
        usable = subprocess.call([python_of(folder), "-m", "pip", "--version"], stdout=subprocess.DEVNULL) == 0
    except OSError:
        usable = False
    if not usable:
        print(f"{folder}: making a virtual environment with {sys.executable}", flush=True)
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", folder])
    named = "[{}]".format(",".join(extras))
    print(f"{folder}: installing this checkout with {' '.join([named, *requirements])}", flush=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f".{named}", *requirements]
    subprocess.check_call([python_of(folder), *install])
    with open(stamp, "a") as file:
        file.writelines(each + "\n" for each in wanted)


def main():
    folder, *parts = sys.argv[1:]
    requirements = [part for part in parts if set(part) & set("=<>")]
    extras = [part for part in parts if part not in requirements]
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        sys.exit(
            f"expected Python {oldest} or later, got {sys.version.split()[0]} ({sys.executable}); name one: make PYTHON=python{oldest}"
        )
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = [fingerprint(part) for part in parts]
        if not is_ready(folder, wanted):
            try:
                make(folder, extras, requirements, wanted)
            except subprocess.CalledProcessError as error:
                sys.exit(f"{folder}: {' '.join(error.cmd[:5])} … failed with exit code {error.returncode}; its output is above")


if __name__ == "__main__":
    main()
