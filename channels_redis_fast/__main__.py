"""The command line: python -m channels_redis_fast demo, serve, or check."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from channels_redis_fast import _version
from channels_redis_fast.demo import launcher
from channels_redis_fast.demo.serve import serve
from channels_redis_fast.demo.site import BACKEND

PROCESSES = 26  # they are called A to Z

DEMO = """\
Starts an embedded Valkey and two server processes with a small Django site: a
chat room in which a browser on one process sees what a browser on the other
types, with a chart of the round-trip time through the channel layer. With
--check it needs no browser: WebSocket clients talk over both processes, every
message is accounted for, and the exit status is 1 if anything is wrong. With
--plain the consumers do without FastDispatchMixin: see what that saves.
"""


def _host(text: str) -> str:
    if urlsplit(text).scheme not in ("redis", "rediss", "unix"):
        expected = "expected redis://, rediss:// or unix://"
        raise argparse.ArgumentTypeError(f"not a Redis URL: {text!r} ({expected})")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"not a port number: {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a number of 1 or more: {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m channels_redis_fast",
        description="A fast Redis channel layer for Django Channels.",
    )
    version = f"channels_redis_fast {_version.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="see the layer at work: a chat room on two server processes",
        description=DEMO,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.set_defaults(parser=demo, run=_demo)
    demo.add_argument(
        "--hosts",
        metavar="URL",
        nargs="+",
        action="extend",
        type=_host,
        help="use this Redis and start none; several are shards",
    )
    demo.add_argument(
        "--port",
        nargs="+",
        type=_port,
        help="one server process per port (default: 8001 8002); a single one "
        "stands for itself and the next; 0 is any free port",
    )
    demo.add_argument(
        "--backend",
        default=BACKEND,
        help="another channel layer, to compare with (default: %(default)s)",
    )
    demo.add_argument(
        "--plain",
        action="store_true",
        help="consumers as Channels has them, without FastDispatchMixin, to compare",
    )
    demo.add_argument(
        "--check", action="store_true", help="account for every message, then exit"
    )
    demo.add_argument(
        "--clients", type=_count, help="clients of --check (default: 200)"
    )
    demo.add_argument(
        "--messages", type=_count, help="messages of --check (default: 10000)"
    )
    demo.add_argument(
        "--time-limit",
        type=_count,
        metavar="SECONDS",
        help="how long --check may take before it reports what is missing "
        "(default: 120; 600 with --plain)",
    )
    serving = commands.add_parser(
        "serve",
        help="a Valkey for development, where there is no Redis",
        description="Runs an embedded Valkey, for development: it listens to this "
        "machine only and keeps nothing.",
    )
    serving.set_defaults(run=lambda arguments: serve(arguments.port))
    serving.add_argument(
        "--port",
        type=_port,
        default=6379,
        help="where it listens (default: %(default)s); 0 is any free port",
    )
    checking = commands.add_parser(
        "check",
        help="whether a channel layer would work on these servers, and what is wrong",
        description="Asks the servers, as manage.py channel_layer check does for the "
        "layers of a site. The exit status is 1 if something doesn't work.",
    )
    checking.set_defaults(run=_check)
    checking.add_argument("hosts", metavar="URL", nargs="+", type=_host)
    checking.add_argument("--prefix", default="asgi", help="default: %(default)s")
    checking.add_argument("--pubsub", action="store_true", help="the Pub/Sub layer")
    checking.add_argument("--json", action="store_true", help="for machines")
    return parser


def _check(arguments: argparse.Namespace) -> int:
    # They need Django; the demo says in a sentence how to install it.
    from channels_redis_fast.core import RedisChannelLayer
    from channels_redis_fast.diagnosis.report import check
    from channels_redis_fast.pubsub import RedisPubSubChannelLayer

    kind = RedisPubSubChannelLayer if arguments.pubsub else RedisChannelLayer

    def make() -> Any:
        return kind(hosts=arguments.hosts, prefix=arguments.prefix)

    return int(check([("layer", make)], print, as_json=arguments.json) > 0)


def _demo(arguments: argparse.Namespace) -> int:
    refuse = arguments.parser.error
    if arguments.check:
        if arguments.port:
            refuse("--check takes free ports of its own, leave --port out")
        arguments.port = [0, 0]
    else:
        for name in ("clients", "messages", "time_limit"):
            if getattr(arguments, name) is not None:
                refuse(f"--{name.replace('_', '-')} goes with --check")
    ports = arguments.port or [8001]
    if len(ports) == 1:
        ports = [ports[0], ports[0] + 1 if ports[0] else 0]
    if ports[-1] > 65535:
        refuse(f"there is no port after {ports[0]}, name two")
    if len(ports) > PROCESSES:
        refuse(f"at most {PROCESSES} processes, got {len(ports)} ports")
    named = [port for port in ports if port]
    for port in named:
        if named.count(port) > 1:
            refuse(f"port {port} is named twice")
    if arguments.clients is not None and arguments.clients < len(ports):
        refuse(f"--clients must be at least {len(ports)}, got {arguments.clients}")
    options = launcher.Options(
        backend=arguments.backend,
        hosts=tuple(arguments.hosts or ()),
        ports=tuple(ports),
        check=arguments.check,
        clients=arguments.clients or 200,
        messages=arguments.messages or 10_000,
        time_limit=arguments.time_limit or (600 if arguments.plain else 120),
        plain=arguments.plain,
    )
    return launcher.launch(options)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command that the words name and returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if not hasattr(arguments, "run"):
        parser.print_help()
        return 2
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
