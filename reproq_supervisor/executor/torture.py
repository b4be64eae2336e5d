"""The task of the command `torture`: it tells who enqueued it when it starts and when it ends, past the queue and its database.

    hello <token> <name> <execution> ──►
                                     ◄── go, or fail: this attempt shall fail
              (the work)
    done | failed                    ──►
                                     ◄── noted

The connection stays open all the while, so that the other side also hears of an execution that was killed, and when: the kernel closes it.
Both answers come within the execution, so times taken between them, by one clock, prove what ran at the same time.
"""

import os
import socket
import time

from reproq_supervisor.executor.api import Fail, Retry

_ANSWER_WITHIN_S = 60.0


def run(host: str, port: int, token: str, name: str, seconds: float) -> str:
    """Tell *host* that this begins, wait for *seconds*, tell it that this ends; return the name of this execution.

    Raises:
      Retry: this attempt was told to fail.
      Fail: nobody listens there; nothing would be proved by another attempt.
    """
    execution = f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_WITHIN_S) as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fails = _ask(listener, f"hello {token} {name} {execution}") == "fail"
            time.sleep(seconds)
            _ask(listener, "failed" if fails else "done")
    except OSError as error:
        raise Fail(f"torture: expected somebody to listen at {host}:{port}, got: {error}") from error
    if fails:
        raise Retry("this attempt fails on purpose", delay_s=0)
    return execution


def _ask(listener: socket.socket, line: str) -> str:
    listener.sendall(f"{line}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        data = listener.recv(64)
        if not data:
            raise ConnectionError("the connection ended")
        answer += data
    return answer.decode().strip()
