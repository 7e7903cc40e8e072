"""The cockpit in a browser: on this machine alone, with a key, read-only unless asked."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pyte
import pytest

from engine.errors import UserError
from stonk_tui.commands import serve
from tests import recorded
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 30.0


@dataclass
class Served:
    process: subprocess.Popen[str]
    printed: list[str]
    address: str
    key: str
    port: int


@contextmanager
def served(*options: str) -> Iterator[Served]:
    recorded.record(20)
    process = subprocess.Popen(
        [sys.executable, "-m", "stonk_tui", "serve", "--port", "0", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SSH_CONNECTION": "192.0.2.9 5000 192.0.2.7 2222"},
    )
    try:
        assert process.stdout is not None
        printed = [process.stdout.readline().rstrip() for _ in range(3)]
        found = re.search(r"(http://localhost:(\d+))/\?key=(\S+)", printed[0])
        assert found is not None, printed
        yield Served(process, printed, found[1], found[3], int(found[2]))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_SECONDS)


async def _status(url: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status


async def _shown(page: Served, keys: str = "", until: str = "20/500") -> str:
    """What the page's terminal shows once ``until`` is there, after typing ``keys``."""
    screen = pyte.Screen(120, 40)
    emulator = pyte.ByteStream(screen)

    def shows(text: str) -> bool:
        return any(text in row for row in screen.display)

    async with aiohttp.ClientSession() as session:
        async with session.get(f"{page.address}/?key={page.key}") as response:
            assert response.status == 200
            assert f"ws://localhost:{page.port}/ws" in await response.text()
        url = f"{page.address}/ws?width=120&height=40"
        async with session.ws_connect(url, origin=page.address) as terminal:
            async with asyncio.timeout(DEADLINE_SECONDS):
                async for message in terminal:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        emulator.feed(message.data)
                    if keys and shows("20/500"):
                        await terminal.send_json(["stdin", keys])
                        keys = ""
                    if not keys and shows(until):
                        break
    return "\n".join(screen.display)


def test_page_shows_the_cockpit_read_only_and_ends_with_what_it_started() -> None:
    with served() as page:
        assert "read-only" in page.printed[0]
        assert f"ssh -N -p 2222 -L {page.port}:localhost:{page.port} " in page.printed[1]
        assert page.printed[1].endswith("@192.0.2.7")
        listening = psutil.Process(page.process.pid).net_connections(kind="inet")
        assert [place.laddr.ip for place in listening if place.status == "LISTEN"] == ["127.0.0.1"]
        text = asyncio.run(_shown(page, keys="p", until="was opened"))
        assert "pause: this cockpit was opened" in text
        wait_for(lambda: not psutil.Process(page.process.pid).children(recursive=True))
    assert page.process.returncode == 0


def test_page_with_control_is_not_read_only() -> None:
    with served("--allow-control") as page:
        assert "with control" in page.printed[0]
        text = asyncio.run(_shown(page))
        assert "read-only" not in text


def test_whoever_has_no_key_or_comes_from_another_page_is_refused() -> None:
    with served() as page:
        address, good = page.address, f"{page.address}/?key={page.key}"
        assert asyncio.run(_status(good)) == 200
        assert asyncio.run(_status(address)) == 403
        assert asyncio.run(_status(f"{address}/?key=x")) == 403
        assert asyncio.run(_status(f"{address}/?key=ä")) == 403
        assert asyncio.run(_status(f"{address}/ws?key={page.key}")) == 403
        assert asyncio.run(_status(f"{address}/static/js/textual.js")) == 403
        # Another page in the same browser, and a name that someone else points at this machine.
        assert asyncio.run(_status(good, Origin="http://evil.example")) == 403
        assert asyncio.run(_status(good, Host=f"evil.example:{page.port}")) == 403


def test_port_that_is_taken_is_one_line_with_a_way_out() -> None:
    recorded.record(3)
    with socket.create_server((serve.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be used") as caught:
            serve.serve(None, port, allow_control=False)
        assert "--port" in str(caught.value)


def test_run_that_is_not_there_is_said_before_anything_is_served() -> None:
    recorded.record(3)
    with pytest.raises(UserError, match="nothing-like-it"):
        serve.serve("nothing-like-it", 0, allow_control=False)
