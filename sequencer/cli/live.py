"""A live display: events of a gateway, drawn anew with each for people, one JSON line each for programs."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
import msgspec
from rich.console import Console, RenderableType
from rich.live import Live

from sequencer.cli.options import connected
from sequencer.cli.output import WIDTH

REDRAWS_PER_S: Final = 8
CHANNELS_MAX: Final = 256
"""Of a connection, by the gateway."""


def with_watch(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that can go on: --watch, and --updates for those who want an end."""
    command = click.option(
        "--updates",
        type=click.IntRange(0),
        default=0,
        help="with --watch: end after this many updates; 0: until Ctrl-C",
    )(command)
    return click.option("--watch", is_flag=True, help="show live updates; with --json one event a line")(
        command
    )


def watch(
    api: str,
    channels: list[str],
    load: Callable[[Any], Awaitable[dict[str, Any]]],
    take: Callable[[str, Any], None],
    draw: Callable[[], RenderableType],
    as_json: bool,
    updates: int,
) -> None:
    """Follows `channels` until Ctrl-C, or for `updates` events.

    `load(client)` asks for what stands now, by channel: at the start, and whenever events were missed; it and each
    event go to `take(channel, data)`. `draw()` gives what people see.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)

    async def main(client: Any) -> None:
        events = await client.subscribe(*channels)
        shown = (
            _Terminal(console, draw)
            if console.is_terminal and not as_json
            else _Lines(console, draw, as_json)
        )
        left = updates

        async def begin() -> None:
            for channel, data in (await load(client)).items():
                take(channel, data)
                shown.heard({"channel": channel, "data": data})
            shown.drawn()

        with shown:
            await begin()
            async for event in events:
                if event.is_gap:
                    shown.heard({"gap": True})
                    await begin()
                    continue
                take(event.channel, event.data)
                shown.heard({"channel": event.channel, "data": event.data})
                shown.drawn()
                left -= 1
                if left == 0:
                    return

    try:
        connected(api, main)
    except KeyboardInterrupt:
        return


class _Terminal:
    """A picture that is drawn in its own place again."""

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        self._draw = draw
        self._live = Live(console=console, refresh_per_second=REDRAWS_PER_S)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def heard(self, event: dict[str, Any]) -> None:
        """An event; the next picture shows it."""

    def drawn(self) -> None:
        """Shows what stands now."""
        self._live.update(self._draw())


class _Lines:
    """Where no terminal is: one JSON line an event, or one picture after the other."""

    def __init__(self, console: Console, draw: Callable[[], RenderableType], as_json: bool) -> None:
        self._console = console
        self._draw = draw
        self._as_json = as_json

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def heard(self, event: dict[str, Any]) -> None:
        """An event, for programs."""
        if self._as_json:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()

    def drawn(self) -> None:
        """Shows what stands now, to people."""
        if not self._as_json:
            self._console.print(self._draw())
