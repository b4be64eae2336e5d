"""The ear of an executor with several slots: one thread that reads what the shard says while others run tasks."""

import select
from collections.abc import Callable

from reproq_supervisor.core.work import decode_batch, decode_slots, decode_stop
from reproq_supervisor.executor.intake import Intake
from reproq_supervisor.executor.outbox import Outbox
from reproq_supervisor.process.deadlines import SoftReason
from reproq_supervisor.process.link import BlockingLink


def receive_all(
    link: BlockingLink,
    intake: Intake,
    outbox: Outbox,
    *,
    on_work: Callable[[], None],
    on_stop: Callable[[int, SoftReason], None],
    on_slots: Callable[[int], None],
) -> None:
    """Take in work and requests to stop until the shard closes the socket; see in between that the outbox is told.

    Args:
      on_work: there is more in the intake, or it was closed.
      on_stop: a hand-out is to stop, for that reason.
      on_slots: so many tasks may run at once from now on.
    """
    poll = select.poll()
    poll.register(link.sock, select.POLLIN)
    poll.register(outbox.wake_fd, select.POLLIN)
    while True:
        if not link.has_frame:
            ready = {fd for fd, _ in poll.poll()}
            if outbox.wake_fd in ready:
                outbox.flush()
            if link.sock.fileno() not in ready:
                continue
        frame = link.receive()
        if frame is None:
            intake.close()
            on_work()
            return
        if (stop := decode_stop(frame)) is not None:
            on_stop(stop[0], SoftReason(stop[1]))
        elif (slots := decode_slots(frame)) is not None:
            on_slots(slots)
        else:
            intake.feed(decode_batch(frame))
            on_work()
