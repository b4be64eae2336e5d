"""Settings of a pool's processes: how they are read, what this machine says of them, and what needs rights."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reproq_supervisor.process.identity import Identity, identity_of
from reproq_supervisor.process.limits import beyond_hard_limits, taken_already
from reproq_supervisor.settings.load import load
from reproq_supervisor.settings.model import Settings
from reproq_supervisor.settings.present import as_yaml
from reproq_supervisor.settings.problems import ConfigError, Problem
from reproq_supervisor.settings.resolve import resolve

AS_NOBODY = os.geteuid() == 0
"""A test may become somebody without rights in a child."""


def read(folder: Path, pool: str) -> Settings:
    path = folder / "c.yaml"
    path.write_text(f"pools:\n  mail:\n    {pool}\n")
    return load(str(path), environ={}).settings


def wire(folder: Path, pool: str) -> dict[str, Any]:
    found: dict[str, Any] = resolve(read(folder, pool), {})["pools"]["mail"]
    return found


def problem(folder: Path, pool: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        read(folder, pool)
    (found,) = caught.value.problems
    assert found.line == 3
    return found


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("[0]", [0]), ("0", [0]), ('"0"', [0]), ("[0, 0-0]", [0]), ("[]", []), ("null", []), ('""', [])],
)
def test_processors_are_numbers_and_ranges(tmp_path: Path, text: str, cpus: list[int]) -> None:
    assert wire(tmp_path, f"cpus: {text}")["cpus"] == cpus


@pytest.mark.parametrize("text", ["[-1]", "[2-1]", "[a]", "[true]", "1.5", "[0-99999]", "{a: 1}"])
def test_what_is_no_processor_is_refused(tmp_path: Path, text: str) -> None:
    assert problem(tmp_path, f"cpus: {text}").message.startswith("expected numbers of processors and ranges, such as [0, 2-3]")


def test_a_processor_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    there = os.sysconf("SC_NPROCESSORS_CONF")
    found = problem(tmp_path, f"cpus: [0, {there}]")
    assert (found.path, found.message) == (
        "pools.mail.cpus",
        f"expected processors of this machine, 0 to {there - 1}, got {there}",
    )


@pytest.mark.parametrize(("text", "mask"), [("027", 0o27), ("27", 0o27), ('"0027"', 0o27), ("0o27", 0o27), ("0", 0), ("null", None)])
def test_a_umask_is_octal_however_it_is_written(tmp_path: Path, text: str, mask: int | None) -> None:
    assert wire(tmp_path, f"umask: {text}")["umask"] == mask


@pytest.mark.parametrize("text", ["088", "1000", "-1", "rw", "true"])
def test_what_is_no_umask_is_refused(tmp_path: Path, text: str) -> None:
    assert "octal digits such as 027" in problem(tmp_path, f"umask: {text}").message


def test_what_is_shown_reads_back_as_it_was(tmp_path: Path) -> None:
    shown = tmp_path / "shown.yaml"
    settings = read(tmp_path, "{umask: 027, user: 4242, cpus: [0], limits: {address_space: 2GiB, core: 0, open_files: 512}}")
    shown.write_text(as_yaml(settings))
    assert load(str(shown), environ={}).settings.pools == settings.pools


def test_an_unknown_account_is_refused_with_one_that_is_like_it(tmp_path: Path) -> None:
    found = problem(tmp_path, "user: nobodyy")
    assert (found.path, found.message, found.hint) == (
        "pools.mail.user",
        "expected an account of this machine, got 'nobodyy'",
        "did you mean nobody?",
    )


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("limits: {open_files: 64}", "limits.open_files", "expected at least 128, got 64"),
        ("limits: {address_space: 5}", "limits.address_space", "expected at least 1048576, got 5"),
        ("limits: {cpu_time: 5s}", "limits.cpu_time", "expected null with isolation reuse, where a process runs many tasks"),
        ("limits: {memory: 5}", "limits.memory", "expected a known key"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(tmp_path: Path, text: str, path: str, message: str) -> None:
    found = problem(tmp_path, text)
    assert (found.path, found.message) == (f"pools.mail.{path}", message)


def test_processor_time_is_a_limit_of_one_task(tmp_path: Path) -> None:
    assert wire(tmp_path, "{isolation: fork, limits: {cpu_time: 90s}}")["limits"]["cpu_time"] == 90.0


# -- accounts ---------------------------------------------------------------------------------------------------------


def test_an_account_is_found_by_name_and_by_number() -> None:
    by_name = identity_of("nobody")
    assert identity_of(str(by_name.uid)) == by_name
    assert by_name.environment() == {"USER": "nobody", "LOGNAME": "nobody", "HOME": by_name.home}


def test_a_number_without_an_account_is_somebody_with_a_group_of_its_own() -> None:
    assert identity_of("4242424") == Identity(4242424, 4242424)
    assert identity_of("4242424").environment() == {"HOME": "/"}


def test_a_name_without_an_account_is_nobody() -> None:
    with pytest.raises(LookupError, match="expected an account of this machine, got 'nosuchuser'"):
        identity_of("nosuchuser")


# -- rights -----------------------------------------------------------------------------------------------------------


_ASK_AS_NOBODY = """
import os, sys
from reproq_supervisor.process.identity import identity_of
from reproq_supervisor.process.privileges import find_lacking
from reproq_supervisor.settings.load import load

settings = load(sys.argv[1], environ={}).settings
if os.geteuid() == 0:
    identity_of("nobody").become()
for lack in find_lacking(settings):
    print(".".join(map(str, lack.path)), lack.message, sep="|")
"""


def lacking(folder: Path, pool: str) -> list[tuple[str, str]]:
    """Return what a daemon that is nobody could not carry out."""
    read(folder, pool)
    argv = [sys.executable, "-c", _ASK_AS_NOBODY, str(folder / "c.yaml")]
    told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return [(path, message) for path, _, message in (line.partition("|") for line in told.splitlines())]


def test_another_user_and_a_lower_niceness_need_rights(tmp_path: Path) -> None:
    found = lacking(tmp_path, "{user: 4242424, nice: -5}")
    assert [path for path, _ in found] == ["pools.mail.user", "pools.mail.nice"]
    assert "expected a daemon that is root, which may become 4242424" in found[0][1]
    assert found[1][1] == "expected 0 or more without privileges, got -5"


def test_what_needs_no_rights_is_not_complained_about(tmp_path: Path) -> None:
    assert lacking(tmp_path, "{nice: 5, umask: 077, cpus: [0], limits: {core: 0, open_files: 128}}") == []


@pytest.mark.skipif(not AS_NOBODY, reason="only root may ask as somebody else")
def test_a_daemon_may_be_told_to_stay_who_it_is(tmp_path: Path) -> None:
    assert lacking(tmp_path, "user: nobody") == []


def test_what_a_process_takes_already_is_held_against_its_limits() -> None:
    assert [(name, limit) for name, limit, _ in taken_already({"address_space": 2**20, "data": 2**50, "open_files": 128})] == [
        ("address_space", 2**20)
    ]
    assert list(taken_already({"address_space": None})) == []


def test_a_limit_above_the_hard_one_is_named_with_it() -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert list(beyond_hard_limits({"open_files": hard, "core": None})) == []
    assert list(beyond_hard_limits({"open_files": hard + 1})) == [("open_files", hard + 1, hard)]
