"""The example shop, started by its one command: orders send receipts, pictures get thumbnails, the report comes when its schedule says."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.marked import MARK, marked_pids, state_of

pytest.importorskip("django")

CHECKOUT = Path(__file__).parents[2]
SHOP = CHECKOUT / "examples" / "django_shop"
# Hang limits: what is expected takes a tenth.
START_S = 150
WORK_S = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Shop:
    """A copy of the example that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shop"
        shutil.copytree(SHOP, self.folder, ignore=shutil.ignore_patterns("__pycache__", ".reproq", "mail", "media"))
        folder.chmod(0o755)
        self.mark = uuid.uuid4().hex
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        foreign = ("DATABASE_URL", "REPROQ_CONFIG", "DJANGO_SETTINGS_MODULE", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "NOTIFY_SOCKET")
        self.env = {name: value for name, value in os.environ.items() if name not in foreign}
        self.env |= {MARK: self.mark, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(CHECKOUT)}
        self.log = folder / "shop.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "start.py", "--port", str(self.port)]
            self.process = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def ask(self, method: str = "GET", path: str = "/", body: str | None = None, **headers: str) -> tuple[int, str, str]:
        """Return status, cookies and text of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WORK_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Set-Cookie") or "", answer.read().decode(errors="replace")
        finally:
            connection.close()

    def is_open(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the shop has ended: {self.log.read_text()}")
        with suppress(OSError, http.client.HTTPException):
            return self.ask()[0] == 200
        return False

    def order(self, email: str) -> None:
        """Fill in the form and send it."""
        _, cookies, page = self.ask()
        token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[0]
        product = re.findall(r'<option value="(\d+)"', page)[0]
        cookie = cookies.partition(";")[0]
        form = urllib.parse.urlencode({"csrfmiddlewaretoken": token, "product": product, "email": email})
        status, _, text = self.ask("POST", "/", form, Cookie=cookie, **{"Content-Type": "application/x-www-form-urlencoded"})
        assert status == 302, text

    def run(self, *command: str) -> str:
        """Run a command beside it, and return what it said."""
        done = subprocess.run([sys.executable, *command], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=WORK_S)
        assert done.returncode == 0, done
        return done.stdout

    @property
    def mails(self) -> str:
        return "\n".join(each.read_text() for each in (self.folder / "mail").glob("*"))

    def living(self) -> list[int]:
        return [pid for pid in marked_pids(self.mark) if state_of(pid) not in ("Z", "")]

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(WORK_S) == 0, self.log.read_text()
            eventually(lambda: not self.living(), timeout=WORK_S, what="no process of the shop is left")
        finally:
            for pid in self.living():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    try:
        eventually(shop.is_open, timeout=START_S, interval=0.2, what="the shop is open")
        yield shop
    finally:
        sys.stdout.write(shop.log.read_text())  # shown with a failed test
        shop.close()


def test_the_shop_sells_draws_and_reports(shop: Shop) -> None:
    shop.order("buyer@example.org")
    eventually(lambda: "buyer@example.org" in shop.mails, timeout=WORK_S, what="the receipt is sent")
    eventually(lambda: shop.ask()[2].count("<img ") == 3, timeout=WORK_S, interval=0.2, what="three thumbnails are on the page")
    assert "receipt sent" in eventually(lambda: [page for page in [shop.ask()[2]] if "receipt sent" in page], timeout=WORK_S)[0]
    thumbnail = re.findall(r'<img src="/([^"]+)"', shop.ask()[2])[0]
    assert (shop.folder / thumbnail).read_bytes().startswith(b"\x89PNG")

    shop.run("-m", "reproq_supervisor", "schedule", "run", "nightly-report", "-c", "supervisor.yaml")
    eventually(lambda: "Orders of the day" in shop.mails, timeout=WORK_S, what="the report is sent")

    assert "SUCCESSFUL" in shop.run("manage.py", "reproq", "stats")
    assert "program" in shop.run("manage.py", "reproq", "check")
    worker = shop.run("-m", "reproq_supervisor", "status", "-c", "supervisor.yaml")
    assert "mail" in worker and "default" in worker
