"""What the kernel says of the time that processes run and wait for a processor."""

import os
import subprocess
import sys
import threading
import time

from reproq_supervisor.process.capacity import asked_ns, asked_with_programs_ns

BURN = "import time\nwhile time.process_time() < 0.2: pass"
STARTS_AND_REAPS = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
print(flush=True)
sys.stdin.read()
"""


def test_every_thread_of_a_process_counts() -> None:
    burnt, done, before = threading.Event(), threading.Event(), asked_ns(os.getpid())

    def burn() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        burnt.set()
        done.wait()

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        assert burnt.wait(60)
        assert asked_ns(os.getpid()) - before >= 90_000_000
    finally:
        done.set()
        thread.join()


def test_a_program_that_has_ended_counts_with_the_process_that_reaped_it() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS_AND_REAPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert asked_with_programs_ns(process.pid) - asked_ns(process.pid) >= 150_000_000
        process.communicate(b"")


def test_a_process_that_is_dead_and_not_reaped_still_says_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # until it has ended
    assert asked_ns(process.pid) >= 150_000_000
    process.communicate()
    assert asked_ns(process.pid) == 0
