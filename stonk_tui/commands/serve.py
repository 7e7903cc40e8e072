"""The cockpit in a browser: a page on this machine alone, to be reached through an ssh tunnel.

textual-serve has no authentication. It is bound to the loopback interface; against other users of
the machine the address holds a key, which the page keeps in a cookie; and against other pages that
are open in the same browser, requests from elsewhere are refused by their Host and Origin.
"""

import getpass
import hmac
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable

from aiohttp import web
from textual_serve.server import Server

from engine.errors import UserError
from engine.runs import directory
from stonk_tui.commands.output import note, say

HOST = "127.0.0.1"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(name: str | None, port: int, *, allow_control: bool) -> None:
    """Serve the cockpit of a run until a person ends it.

    Args:
        name: the run, or an unambiguous part of its id; None is the newest.
        port: of this machine; 0 takes any that is free.
        allow_control: let whoever has the address steer the run.

    Raises:
        UserError: no such run, it is not readable, or the port is taken.
    """
    run = directory.find(name)
    run.config()
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(
            f"port {port} of {HOST} cannot be used ({error.strerror})", fix="choose one with --port"
        ) from error
    port = listener.getsockname()[1]
    command = [sys.executable, "-m", "stonk_tui", "attach", run.id]
    page = Page(command if allow_control else [*command, "--read-only"], port)
    mode = "with control" if allow_control else "read-only"
    say(f"run {run.id}, {mode}: http://localhost:{port}/?key={page.key}")
    say(f"from elsewhere, first:  {tunnel(port)}")
    say("ctrl+c ends this page; the run goes on")
    web.run_app(page.application(), sock=listener, print=None, access_log=None)


def tunnel(port: int) -> str:
    """The command that brings ``port`` of this machine to the one where it is typed."""
    # "client-address client-port server-address server-port", as the person reached this machine.
    _, _, host, ssh_port = (os.environ.get("SSH_CONNECTION", "").split() + [""] * 4)[:4]
    other = f"-p {ssh_port} " if ssh_port not in ("", "22") else ""
    where = f"{getpass.getuser()}@{host or socket.gethostname()}"
    return f"ssh -N {other}-L {port}:localhost:{port} {where}"


class Page:
    """The page, its key, and who may see it."""

    def __init__(self, command: list[str], port: int) -> None:
        self.key = secrets.token_urlsafe(16)
        self._authority = f"localhost:{port}"
        self._cookie = f"stonk-tui-{port}"
        self._server = _QuietServer(
            # textual-serve starts it through a shell.
            shlex.join(command),
            host="localhost",
            port=port,
            title="stonk-tui",
        )

    async def application(self) -> web.Application:
        application = await self._server._make_app()
        application.middlewares.append(self._guard)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in whoever has the key, from this very page."""
        origin = request.headers.get("Origin", f"http://{self._authority}")
        if request.host != self._authority or origin != f"http://{self._authority}":
            raise web.HTTPForbidden(text=f"Open this page as http://{self._authority}/?key=…\n")
        brought = request.query.get("key", "") if request.path == "/" else ""
        known = brought or request.cookies.get(self._cookie, "")
        if not hmac.compare_digest(known.encode(), self.key.encode()):
            raise web.HTTPForbidden(text="The key is missing: use the address that was printed.\n")
        response = await handler(request)
        if brought:
            response.set_cookie(self._cookie, self.key, httponly=True, samesite="Strict")
        return response


class _QuietServer(Server):
    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the address has been printed, with its key."""

    async def on_shutdown(self, app: web.Application) -> None:
        note("the page is closed")
