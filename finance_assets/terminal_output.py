"""Output to a terminal, with control characters escaped and secrets in addresses masked (see ``text``).

What belongs here: the console and the functions that print. ``dagster_output`` is the same for Dagster.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from finance_assets.text import escape_controls, escape_name, hide_url_secrets, safe_message

PIPED_WIDTH = 120


class SafeConsole(Console):
    """A console that escapes control characters in everything it prints and masks secrets in addresses.

    Line breaks are kept, because our own messages contain them; external text goes through :func:`shown`.
    """

    def render_str(self, text: str, **options: Any) -> Any:
        """Return a string in the form in which it is printed."""
        return super().render_str(escape_controls(hide_url_secrets(text), keep_newlines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of any renderable, with control characters escaped."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text, keep_newlines=True)
            yield segment if text == segment.text else Segment(text, segment.style)


def console(*, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> Console:
    """Return a console; if the output is not a terminal, its lines are long enough for every table.

    Parameters
    ----------
    stderr
        Print on standard error.
    file, width
        Print to this stream, with this many columns.
    """
    stream = file or (sys.stderr if stderr else sys.stdout)
    if width is None and not (stream.isatty() or "COLUMNS" in os.environ):
        width = PIPED_WIDTH
    # Without emoji, so that ":key:" in a name is printed as it is.
    return SafeConsole(stderr=stderr, file=file, highlight=False, emoji=False, width=width)


def shown(value: object) -> str:
    """Return an external value, such as a name, for the terminal: unchanged in meaning, in one line, without markup."""
    return escape(escape_name(hide_url_secrets(str(value))))


def shown_message(text: object) -> str:
    """Return a message that quotes external text, for the terminal: in one line, without markup."""
    return escape(safe_message(text))


def say(message: object, *, stderr: bool = False) -> None:
    """Print a message that quotes external text, in one line of any length."""
    console(stderr=stderr).print(shown_message(message), soft_wrap=True)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print lines for another program on standard output, unchanged except for control characters."""
    sys.stdout.write(escape_controls(text, keep_newlines=True) + end)
    sys.stdout.flush()
