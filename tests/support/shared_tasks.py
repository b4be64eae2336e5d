"""Tasks for executors that run several at once."""

# ruff: noqa: T201 - these tasks print

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType


def wait_for_file(path: str, seconds: float = 120) -> None:
    """Sleep, a little at a time, until a file exists."""
    end = time.monotonic() + seconds
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)


async def wait_for_file_in_coroutine(path: str) -> None:
    """Sleep in a coroutine, a little at a time, until a file exists."""
    while not Path(path).exists():
        await asyncio.sleep(0.01)


def spin_until_stopped(marker: str) -> None:
    """Stay in Python code; asked to stop, leave the file *marker* and go."""
    try:
        while True:
            time.sleep(0.001)
    except BaseException as error:
        Path(marker).write_text(type(error).__name__)
        raise


async def record_interval_in_coroutine(path: str, name: str, seconds: float) -> None:
    """Append start and end of a nap with their times to a file."""
    for what in ("start", "end"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{name} {what} {os.getpid()} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n")
        if what == "start":
            await asyncio.sleep(seconds)


async def interrupt_in_coroutine() -> None:
    """Raise what Ctrl-C raises, in a coroutine."""
    raise KeyboardInterrupt


def stop_iteration() -> None:
    """Raise what futures and coroutines do not take."""
    raise StopIteration


def return_coroutine(value: object) -> object:
    """Return a coroutine, as decorators of coroutine functions do."""

    async def inner() -> object:
        await asyncio.sleep(0.01)
        return value

    return inner()


async def cancel_all_others() -> None:
    """Cancel whatever is on the loop, as code does that believes the loop its own."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def block_the_loop(seconds: float) -> None:
    """Sleep in a coroutine the wrong way."""
    await asyncio.sleep(0)
    time.sleep(seconds)


async def print_in_coroutine(text: str) -> None:
    """Print half of *text* before and half after others had the loop."""
    print(text[:3], end="")
    await asyncio.sleep(0.02)
    print(text[3:])


def print_in_a_thread(text: str) -> None:
    """Print *text* in a thread of our own."""
    thread = threading.Thread(target=print, args=(text,))
    thread.start()
    thread.join()


_POOL = ThreadPoolExecutor(2)


def print_in_a_pool(text: str) -> None:
    """Print *text* in a thread that other tasks use, too."""
    _POOL.submit(print, text).result()


def log_to_stderr(text: str) -> None:
    """Log *text* through a handler that was made before any task."""
    _LOGGER.warning(text)


_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.StreamHandler())


def write_below_python(from_c: str, from_program: str, go: str) -> None:
    """Write to descriptor 1 from C and from a program, then wait until *go* exists."""
    line = f"{from_c}\n".encode()
    ctypes.CDLL(None).write(1, line, len(line))
    subprocess.run(["echo", from_program], check=True)
    wait_for_file(go)


def leave_writing_thread(text: str, go: str) -> None:
    """Leave a thread behind that prints *text* once the file *go* exists."""

    def write_late() -> None:
        wait_for_file(go)
        print(text)
        Path(f"{go}.done").touch()

    print("early words")
    threading.Thread(target=write_late, daemon=True).start()


def count_a_little(value: object, rounds: int) -> object:
    """Keep Python busy for a moment and return *value*."""
    for _ in range(rounds):
        sum(range(50))
    return value


async def count_in_coroutine(value: object, rounds: int) -> object:
    """Keep the loop busy for a moment, give it away, do it again, and return *value*."""
    for _ in range(3):
        count_a_little(value, rounds)
        await asyncio.sleep(0)
    return value


async def stop_the_loop() -> str:
    """Stop the loop that others use, too."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "still here"


async def exit_in_a_child() -> None:
    """Have a task of our own leave by `sys.exit`."""

    async def leave() -> None:
        sys.exit(3)

    await asyncio.gather(leave())


async def leave_ticking_task(text: str) -> None:
    """Leave a task on the loop that goes on printing."""

    async def tick() -> None:
        while True:
            print(text)
            await asyncio.sleep(0.005)

    _LEFT.append(asyncio.create_task(tick()))


_LEFT: list[object] = []


async def meet_the_signal_in_call_soon(began: str) -> None:
    """Have the soft signal come in the middle of the loop's own code, while it schedules our next step."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon
    met = False

    def interrupted(*args: object, **options: object) -> object:
        nonlocal met
        if not met:
            met = True
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        return call_soon(*args, **options)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    Path(began).touch()
    while signal.SIGUSR1 not in signal.sigpending():
        time.sleep(0.001)
    loop.call_soon = interrupted
    await asyncio.sleep(0)
    loop.call_soon = call_soon
    await asyncio.sleep(3600)


async def meet_the_signal_in_a_lock(began: str) -> None:
    """Have the soft signal come in the middle of code of asyncio that wakes another task, and keep busy then."""
    lock, loop = asyncio.Lock(), asyncio.get_running_loop()

    async def wait_for_it() -> None:
        async with lock:
            Path(f"{began}.woken").touch()

    call_soon = loop.call_soon

    def interrupted(*args: object, **options: object) -> object:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        return call_soon(*args, **options)

    interrupted = FunctionType(interrupted.__code__, {**globals(), "__name__": "asyncio.events"}, closure=interrupted.__closure__)
    await lock.acquire()
    waiting = asyncio.create_task(wait_for_it())
    await asyncio.sleep(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    Path(began).touch()
    while signal.SIGUSR1 not in signal.sigpending():
        time.sleep(0.001)
    loop.call_soon = interrupted
    try:
        lock.release()
        loop.call_soon = call_soon
        while True:
            time.sleep(0.001)
    finally:
        loop.call_soon = call_soon
        await waiting


_crowd = 0


async def share(seconds: float, best: int) -> None:
    """Take longer the more of these run in this executor: most of them get done when *best* run at once, clearly fewer with more."""
    global _crowd
    _crowd += 1
    try:
        end = time.monotonic() + seconds
        left_s = seconds
        while left_s > 0:
            slower = max(1.0, (_crowd / best) ** 2)
            step_s = min(left_s, 0.005)
            await asyncio.sleep(step_s * slower)
            left_s -= step_s
        assert time.monotonic() >= end - 0.01
    finally:
        _crowd -= 1
