"""Drive the cockpit in tests: a frozen clock, a made-up machine, and waiting for conditions."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from textual.app import App
from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from engine.runs.directory import RunDirectory
from stonk_tui.app import Cockpit
from stonk_tui.machine import GpuLoad, Machine
from tests import recorded

DEADLINE_SECONDS = 20.0

MACHINE = Machine(
    gpus=(GpuLoad(0, "NVIDIA H200", 139 * 2**30, 12 * 2**30, 0.97, 612.0, 61),),
    cpu=0.14,
    num_cpus=16,
    memory_used=9 * 2**30,
    memory_total=128 * 2**30,
    worker_memory=int(3.4 * 2**30),
    worker_cpu=1.0,
    disk_free=81 * 2**30,
)


def cockpit(
    run: RunDirectory | None,
    *,
    now: float = recorded.START + 4000,
    read_only: bool = False,
    message: str | None = None,
) -> Cockpit:
    """A cockpit whose clock stands still and whose machine is made up."""
    return Cockpit(run, read_only, message, clock=lambda: now, machine=MACHINE)


@asynccontextmanager
async def opened(app: Cockpit, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Pilot[None]]:
    """Run ``app`` until everything recorded is on screen."""
    async with app.run_test(size=size, notifications=True) as pilot:
        if app.model is not None:
            await until(pilot, lambda: app.model is not None and app.model.loaded)
        else:
            await until(pilot, lambda: "Looking" not in text_of(app))
        await settle(pilot)
        yield pilot


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for ``condition``; a test that waits in vain fails with what was on screen."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain; on screen:\n{text_of(pilot.app)}")
        await pilot.pause(0.01)


async def _workers_done(pilot: Pilot[None]) -> None:
    """Wait until no worker runs; one that a newer one replaced was cancelled."""
    while True:
        try:
            await pilot.app.workers.wait_for_complete()
        except WorkerCancelled:
            await pilot.pause()
            continue
        return


async def settle(pilot: Pilot[None]) -> None:
    """Draw what is new, and wait until all of it is on screen."""
    await _workers_done(pilot)
    await pilot.pause()
    draw = getattr(pilot.app.screen, "refresh_screen", None)
    if draw is not None:
        draw()
    await _workers_done(pilot)
    await pilot.pause()


async def until_rows_are_read(pilot: Pilot[None]) -> None:
    """Wait until no line of a long table waits for its row."""
    await settle(pilot)
    await until(pilot, lambda: not any(row.strip() == "…" for row in rows_of(pilot.app)))


def rows_of(app: App[None]) -> list[str]:
    """What is on screen, line by line."""
    return [
        "".join(segment.text for segment in strip)
        for strip in app.screen._compositor.render_strips()
    ]


def text_of(app: App[None]) -> str:
    """What is on screen."""
    return "\n".join(rows_of(app))
