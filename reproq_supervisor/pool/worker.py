"""The shard's end of one executor: its socket, its tokens, its capture files, and the runs in its hands."""

import array
import fcntl
import os
import select
import signal
import socket
import struct
import termios
from collections import deque
from dataclasses import dataclass, field

from reproq_supervisor.core import frames
from reproq_supervisor.core.work import (
    MAX_METADATA_BYTES,
    TOKEN,
    Result,
    decode_note,
    decode_output_note,
    decode_result,
    encode_batch,
    encode_slots,
    encode_stop,
)
from reproq_supervisor.pool.held import Held
from reproq_supervisor.pool.in_hand import InHand
from reproq_supervisor.process.deadlines import SoftReason
from reproq_supervisor.process.holes import free_beyond

_READ_BYTES = 64 * 1024
"""More makes the allocator map and unmap memory for every read: 13 us instead of 2."""
CAPTURE_BYTES = 1024 * 1024
"""What is kept of each stream of an attempt, unless the pool says otherwise."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Output:
    """What one attempt wrote: capture files that are now ours alone. Their size is what was written, of which the beginning is kept."""

    stdout_fd: int
    stderr_fd: int
    kept_bytes: tuple[int, int] = (CAPTURE_BYTES, CAPTURE_BYTES)

    def close(self) -> None:
        os.close(self.stdout_fd)
        os.close(self.stderr_fd)


@dataclass(slots=True, eq=False)
class Executor:
    """One forked executor.

    Attributes:
      shared: several tasks may run in it (`mode: thread` or `async`), and outputs arrive run by run.
      most_slots: tasks that it can run at once; `in_hand.slots` are in use.
      excuse: why it is killed through no fault of what runs in it: those that nobody asked to stop are then released.
      waiting: the hand-out that was to start next when the watch looked last, and since when.
      condemned_mono: when it was found that one of its runs does not stop; the others may still end.
      dies_mono: when it is killed, its stacks having been asked for.
      capture: its own capture files; where it is shared they hold only what belongs to no run, and `outputs` has those of its runs.
    """

    row: int
    pid: int
    work: socket.socket
    pidfd: int
    tokens_write: int
    tokens_read: int
    capture: tuple[int, int] | None
    most_slots: int = 1
    shared: bool = False
    single_use: bool = False
    kept_bytes: tuple[int, int] = (CAPTURE_BYTES, CAPTURE_BYTES)
    in_hand: InHand = field(init=False)
    outgoing: bool = False  # gets no more work: it is dismissed when its replacement is there
    leaving: bool = False
    excuse: SoftReason | None = None
    exited: bool = False
    eof: bool = False
    stopped_since_mono: float | None = None
    lingers_since_mono: float | None = None
    waiting: tuple[int, float] = (0, 0.0)
    condemned_mono: float | None = None
    dies_mono: float | None = None
    finished_total: int = 0
    outputs: dict[int, Output] = field(default_factory=dict)
    _reader: frames.FrameReader = field(default_factory=frames.FrameReader)
    _new_captures: deque[tuple[int, int]] = field(default_factory=deque)
    _unsent: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.in_hand = InHand(self.most_slots)

    @property
    def takes_work(self) -> bool:
        """Whether it may be given more: one that leaves would take the token and never see the task."""
        if self.outgoing or self.leaving or self.exited or self.eof or self.stopped_since_mono:
            return False
        return not (self.single_use and self.in_hand)

    def hand_out(self, batch: list[Held]) -> bool:
        """Give it more work; False when the rest of the frame must wait for `flush` (the socket is full)."""
        # Tokens first: when the frame arrives they must be there.
        os.write(self.tokens_write, b"".join([TOKEN.pack(held.seq) for held in batch]))
        self.in_hand.add(batch)
        self._unsent += frames.encode(encode_batch([held.work() for held in batch]))
        return self.flush()

    def flush(self) -> bool:
        """Send what waits, and say goodbye after it if it was dismissed meanwhile; True when nothing is left."""
        while self._unsent:
            try:
                sent = self.work.send(self._unsent)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                self._unsent.clear()  # it is dead; its exit will say so
                return True
            del self._unsent[:sent]
        self._say_goodbye_when_due()
        return True

    def use_slots(self, slots: int) -> bool:
        """Have it run so many tasks at once from now on; what runs is let end. False when the frame must wait for `flush`."""
        self.in_hand.slots = slots
        self._unsent += frames.encode(encode_slots(slots))
        return self.flush()

    def unstarted(self) -> int:
        """Return how many of the runs in hand have not started."""
        size = array.array("i", [0])
        fcntl.ioctl(self.tokens_read, termios.FIONREAD, size)
        return size[0] // TOKEN.size

    def running(self) -> list[Held]:
        """Return the runs that have started and not ended, as far as we know."""
        return self.in_hand.started(self.unstarted())

    def take_back(self) -> list[Held]:
        """Take what has not started out of its hands again."""
        taken: set[int] = set()
        while True:
            try:
                tokens = os.read(self.tokens_read, TOKEN.size * 512)
            except BlockingIOError:
                break
            if not tokens:
                break
            taken.update(seq for (seq,) in TOKEN.iter_unpack(tokens))
        return self.in_hand.remove(taken)

    def read_results(self, *, all_of_it: bool = False) -> list[tuple[Held, Result, Output | None]]:
        """Read what has arrived: each finished run with its result, and its output when it wrote any.

        Args:
          all_of_it: read until the socket is empty (the executor is dead), not just once. At its end `eof` is set.
        """
        finished: list[tuple[Held, Result, Output | None]] = []
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.work, _READ_BYTES, 16)
            except BlockingIOError:
                return finished
            except ConnectionResetError:
                data, descriptors = b"", []
            if not data:
                self.eof = True
                return finished
            for at in range(0, len(descriptors) - 1, 2):
                self._new_captures.append((descriptors[at], descriptors[at + 1]))
            try:
                for frame in self._reader.feed(data):
                    self._take(frame, finished)
            except (ValueError, struct.error):
                # User code wrote into the socket, or something stranger: nothing that it says can be trusted any more.
                self.eof = True
                self.send_signal(signal.SIGKILL)
                return finished
            if not all_of_it:
                return finished

    def _take(self, frame: bytes, finished: list[tuple[Held, Result, Output | None]]) -> None:
        note = decode_note(frame)
        if note is not None:
            if len(note[1]) > MAX_METADATA_BYTES:
                raise ValueError(f"executor {self.pid}: expected at most {MAX_METADATA_BYTES} bytes of metadata, got {len(note[1])}")
            # A thread that outlives its run may tell one too late.
            if (held := self.in_hand.get(note[0])) is not None:
                held.note = note[1]
            return
        seq = decode_output_note(frame) if self.shared else None
        if seq is None:
            self._finish(decode_result(frame), finished)
            return
        if self.in_hand.get(seq) is None or not self._new_captures:
            raise ValueError(f"executor {self.pid}: expected the output of what it runs, got one of hand-out {seq}")
        self.outputs[seq] = Output(*self._new_captures.popleft())

    def _finish(self, result: Result, finished: list[tuple[Held, Result, Output | None]]) -> None:
        output = self.outputs.pop(result.seq, None) if self.shared else self._exchange() if result.output_follows else None
        held = self.in_hand.finish(result.seq)
        if held is None:
            if output is not None:
                output.close()
            raise ValueError(f"executor {self.pid}: expected a result of what it runs, got one of hand-out {result.seq}")
        finished.append((held, result, output))
        self.finished_total += 1
        if self.single_use or self.leaving:
            self.leaving = True
            self._say_goodbye_when_due()

    def _exchange(self) -> Output | None:
        new = self._new_captures.popleft() if self._new_captures else None
        if new is None or self.capture is None:
            return None
        output, self.capture = Output(*self.capture, self.kept_bytes), new
        return output

    def cut_output(self) -> None:
        """Free the memory of what is past the limit; cutting the files instead would race with the count of what was written."""
        files = [*zip(self.capture or (), self.kept_bytes, strict=False)]
        for output in self.outputs.values():
            files += ((output.stdout_fd, output.kept_bytes[0]), (output.stderr_fd, output.kept_bytes[1]))
        for fd, kept in files:
            free_beyond(fd, -(-kept // _PAGE_BYTES) * _PAGE_BYTES)

    def take_running(self) -> tuple[list[tuple[Held, Output | None]], list[Held]]:
        """Return what was running when it died, each with what it had written, and what else was in its hands; those excused know it."""
        left = self.in_hand.clear()
        running, rest = left[: self.most_slots], left[self.most_slots :]
        for held in running:
            held.soft_reason = held.soft_reason or self.excuse
        if self.shared:
            return [(held, self.outputs.pop(held.seq, None)) for held in running], rest
        output = None
        if running and self.capture is not None:
            output, self.capture = Output(*self.capture, self.kept_bytes), None
        return [(held, output) for held in running], rest

    def send_stop(self, seq: int, reason: SoftReason) -> bool:
        """Ask one of several runs to stop; False when the frame must wait for `flush`."""
        self._unsent += frames.encode(encode_stop(seq, reason))
        return self.flush()

    def send_signal(self, signum: int) -> None:
        """Signal this very process, never one that got its number later."""
        try:
            signal.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError:
            return

    def wait_dead(self, timeout_s: float) -> None:
        """Wait until it is dead, but not longer; for the end of a shard, it blocks."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll(timeout_s * 1000)

    def dismiss(self) -> None:
        """Let it end after what it is doing: no more work will come."""
        self.leaving = True
        self._say_goodbye_when_due()

    def _say_goodbye_when_due(self) -> None:
        if not self.leaving:
            return
        # It has the token of a task whose frame is still on its way: cut off now, it would end in the middle of that task. And one whose
        # tasks are asked to stop by frames must hear us as long as it has any.
        if self.in_hand and (self._unsent or self.shared):
            return
        try:
            self.work.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Give back every descriptor; the process is gone."""
        self.work.close()
        for fd in (self.pidfd, self.tokens_read, self.tokens_write, *(self.capture or ())):
            os.close(fd)
        for output in self.outputs.values():
            output.close()
        while self._new_captures:
            for fd in self._new_captures.popleft():
                os.close(fd)
