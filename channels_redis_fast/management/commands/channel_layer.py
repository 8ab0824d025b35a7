"""`manage.py channel_layer`: looks at channel layers, and uses them."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from argparse import SUPPRESS
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import channel_layers
from django.core.management.base import BaseCommand, CommandError
from redis.exceptions import RedisError

from ..._base import BaseRedisLayer
from ...demo import numbers
from ...demo.serve import serve
from ...diagnosis.groups import groups
from ...diagnosis.report import check
from ..table import show
from ..top import Top
from ..using import listen, parse_message

_CHECK = "asks the servers of all layers; exit status 1 if something doesn't work"


class Command(BaseCommand):  # type: ignore[misc]
    """Each subcommand is a method."""

    help = "Looks at the channel layers of this site, and uses them."
    requires_system_checks: list[str] = []  # `check` says it in its own words

    def add_arguments(self, parser: Any) -> None:
        """The subcommands."""
        commands = parser.add_subparsers(dest="do", metavar="COMMAND", required=True)

        def add(
            name: str, text: str, *words: str, alias: str | None = "default"
        ) -> Any:
            one = commands.add_parser(name, help=text, description=f"{name} {text}.")
            one.set_defaults(do=name)
            for word in "--settings", "--pythonpath":  # Django's, which saw them
                one.add_argument(word, default=SUPPRESS, help=SUPPRESS)
            for word in words:
                one.add_argument(word, metavar=word.upper())
            if name != "serve":
                about = "a key of CHANNEL_LAYERS"
                one.add_argument("--alias", default=alias, help=about)
            return one

        one = add("check", _CHECK, alias=None)
        one.add_argument("--json", action="store_true", help="for machines")
        one = add("top", "shows a line for each process, every second")
        one.add_argument("--once", action="store_true", help="one look, and the end")
        one.add_argument("--json", action="store_true", help="for machines")
        one = add("groups", "lists groups, and how many members each has")
        one.add_argument("pattern", nargs="?", default="*", help="a glob, as 'room-*'")
        one = add("listen", "writes the messages of a group as lines of JSON", "group")
        help_ = "ends after so many messages"
        one.add_argument("--count", type=numbers.count, help=help_)
        add("send", "sends a message, in JSON, to a channel", "channel", "message")
        add("group_send", "sends a message, in JSON, to a group", "group", "message")
        one = add("flush", "deletes all messages and groups of a layer")
        one.add_argument("--yes", action="store_true", help="really")
        one = add("serve", "runs a Valkey for development, which keeps nothing")
        help_ = "0: any free one"
        one.add_argument("--port", type=numbers.port, default=6379, help=help_)

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs the subcommand that is named."""
        with _in_words():
            getattr(self, f"do_{options['do']}")(**options)

    def do_check(self, alias: str | None, json: bool, **_: Any) -> None:
        """Looks at the servers of layers."""
        aliases = [_known(alias)] if alias else list(channel_layers.configs)
        if not aliases:
            raise CommandError("there is no layer in CHANNEL_LAYERS")
        made = [(name, functools.partial(_layer, name)) for name in aliases]
        if errors := check(made, self.stdout.write, as_json=json):
            raise CommandError(f"{errors} error{'' if errors == 1 else 's'}, see above")

    def do_top(self, alias: str, once: bool, json: bool, **_: Any) -> None:
        """Shows the processes."""
        is_screen = self.stdout.isatty() and not once
        how = {"once": once, "as_json": json, "is_screen": is_screen}
        with closing(Top(_our_layer(alias))) as top, suppress(KeyboardInterrupt):
            show(top.look, self._write_now, self.stderr.write, **how)

    def do_groups(self, alias: str, pattern: str, **_: Any) -> None:
        """Lists groups."""
        found = groups(_our_layer(alias), pattern)
        for name, members in sorted(found.items()):
            self.stdout.write(f"{members:>8,}  {name}")
        self.stderr.write(f"{len(found):,} group{'' if len(found) == 1 else 's'}")

    def do_listen(self, alias: str, group: str, count: int | None, **_: Any) -> None:
        """Writes the messages of a group."""
        work = listen(_layer(alias), group, self._write_now, self.stderr.write, count)
        with suppress(KeyboardInterrupt):
            asyncio.run(work)

    def do_send(self, alias: str, channel: str, message: str, **_: Any) -> None:
        """Sends to a channel."""
        async_to_sync(_layer(alias).send)(channel, parse_message(message))

    def do_group_send(self, alias: str, group: str, message: str, **_: Any) -> None:
        """Sends to a group."""
        async_to_sync(_layer(alias).group_send)(group, parse_message(message))

    def do_flush(self, alias: str, yes: bool, **_: Any) -> None:
        """Deletes all."""
        layer = _layer(alias)
        if not yes:
            what = f"all messages and groups of {alias} ({layer})"
            raise CommandError(f"this deletes {what}, in use or not: add --yes")
        async_to_sync(layer.flush)()

    def do_serve(self, port: int, **_: Any) -> None:
        """Runs a Valkey."""
        raise SystemExit(serve(port))

    def _write_now(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _layer(alias: str) -> Any:
    return channel_layers[_known(alias)]


def _known(alias: str) -> str:
    if alias not in channel_layers.configs:
        known = ", ".join(channel_layers.configs) or "none"
        raise CommandError(f"no layer {alias!r} in CHANNEL_LAYERS; there is {known}")
    return alias


def _our_layer(alias: str) -> BaseRedisLayer:
    layer = _layer(alias)
    if not isinstance(layer, BaseRedisLayer):
        kind = f"{type(layer).__module__}.{type(layer).__qualname__}"
        raise CommandError(
            f"{kind} is another package's layer, and can't be asked that"
        )
    return layer


@contextmanager
def _in_words() -> Iterator[None]:
    """One line instead of a traceback, for what users and operators can mend."""
    try:
        yield
    except (RedisError, ChannelFull, TypeError, ValueError) as error:
        raise CommandError(str(error)) from error
    except BrokenPipeError:  # who reads has enough, as `head`; nor is the rest written
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
