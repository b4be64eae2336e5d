"""What control groups leave to a process, from folders like those of the kernel."""

from pathlib import Path

import pytest

from reproq_supervisor.process.capacity import MachineGauge
from reproq_supervisor.process.control_group import find_groups, granted_processors, memory_left

MIB = 1024 * 1024


@pytest.fixture
def groups(tmp_path: Path) -> list[Path]:
    """The group of a service, its slice and the root."""
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/\n0::/system.slice/queue.service\n")
    (tmp_path / "root/system.slice/queue.service").mkdir(parents=True)
    return find_groups(own, tmp_path / "root")


def test_a_service_is_in_its_own_group_and_in_all_above(groups: list[Path], tmp_path: Path) -> None:
    assert [str(group.relative_to(tmp_path)) for group in groups] == ["root/system.slice/queue.service", "root/system.slice", "root"]


@pytest.mark.parametrize("said", ["0::/\n", "0::/../other\n", "9:memory:/docker\n", None])
def test_a_container_and_an_old_kernel_have_the_root_only(tmp_path: Path, said: str | None) -> None:
    own = tmp_path / "own"
    if said is not None:
        own.write_text(said)
    assert find_groups(own, tmp_path) == [tmp_path]


def test_the_smallest_share_of_the_processors_counts(groups: list[Path]) -> None:
    assert granted_processors(groups) == float("inf")
    (groups[0] / "cpu.max").write_text("max 100000\n")
    assert granted_processors(groups) == float("inf")
    (groups[0] / "cpu.max").write_text("150000 100000\n")
    (groups[1] / "cpu.max").write_text("300000 100000\n")
    assert granted_processors(groups) == 1.5


def test_memory_ends_where_the_first_group_is_full(groups: list[Path]) -> None:
    assert memory_left(groups, 0.1) is None
    for group, most, current in ((groups[0], "max", 10), (groups[1], str(1000 * MIB), 700)):
        (group / "memory.max").write_text(f"{most}\n")
        (group / "memory.current").write_text(f"{current * MIB}\n")
    assert memory_left(groups, 0.1) == 200 * MIB
    (groups[0] / "memory.max").write_text(str(100 * MIB))
    assert memory_left(groups, 0.1) == 80 * MIB


def test_what_was_read_of_files_and_can_be_forgotten_is_free(groups: list[Path]) -> None:
    (groups[0] / "memory.max").write_text(str(1000 * MIB))
    (groups[0] / "memory.current").write_text(str(990 * MIB))
    assert memory_left(groups, 0.1) == 0
    (groups[0] / "memory.stat").write_text(f"anon {100 * MIB}\nfile {890 * MIB}\ninactive_file {600 * MIB}\n")
    assert memory_left(groups, 0.1) == 510 * MIB


def test_pressure_counts_from_look_to_look(tmp_path: Path) -> None:
    def say(cpu_us: int, memory_us: int) -> None:
        tail = "avg10=0.00 avg60=0.00 avg300=0.00 total="
        (tmp_path / "cpu").write_text(f"some {tail}{cpu_us}\nfull {tail}0\n")
        (tmp_path / "memory").write_text(f"some {tail}{10**12}\nfull {tail}{memory_us}\n")

    say(10**9, 10**9)
    gauge = MachineGauge(pressure=tmp_path)
    quiet = gauge.look()
    assert (quiet.crowded, quiet.memory_stalled) == (0.0, 0.0)
    say(10**9 + 10**12, 10**9)
    assert (gauge.look().crowded, gauge.look().memory_stalled) == (1.0, 0.0)
    say(10**9 + 10**12, 10**9 + 10**12)
    machine = gauge.look()
    assert (machine.crowded, machine.memory_stalled) == (0.0, 1.0)
