"""Consumers that keep up with the layer: `FastDispatchMixin` and `broadcast`.

    class ChatConsumer(FastDispatchMixin, AsyncJsonWebsocketConsumer):
        async def chat_message(self, event):  # as before, once for each client
            await self.send_json({"text": event["text"]})

        @broadcast  # once for each message and process: all members get the same frame
        def chat_notice(event):
            return {"text": event["text"]}

What this needs of Channels beyond its documentation, and only this (each has a test in
tests/consumers):

- `AsyncConsumer.__call__` sets `scope`, `base_send`, `channel_layer`, `channel_name`
  and `channel_receive`, gives all events to `dispatch`, and ends quietly by
  `StopConsumer`;
- `AsyncConsumer.dispatch` calls `channels.db.close_old_connections` in the thread of
  `sync_to_async`, then the handler that `get_handler_name` names;
- `channels.consumer.get_channel_layer` finds the layer, and `_sync` marks consumers
  whose handlers run in threads;
- `AsyncJsonWebsocketConsumer.send_json` sends what `encode_json` makes, and
  `AsyncWebsocketConsumer.send` takes it as `text_data`, or as `bytes_data`;
- its `send`, and `AsyncConsumer.send` below it, only give `base_send` the ASGI event
  `websocket.send`, with `text` or `bytes`.

_old_connections.py needs six attributes of Django's connections.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from channels import consumer as channels_consumer
from channels.consumer import AsyncConsumer, SyncConsumer, get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
)

from . import _old_connections
from ._events import LayerMessages, ReceiveLoop, end
from .mailboxes.waiters import NOTHING, Entry, opened

__all__ = ["FastDispatchMixin", "broadcast"]


class FastDispatchMixin(AsyncConsumer):  # type: ignore[misc]
    """Runs a consumer's handlers without a new task or thread for each event.

    Named before or after any asynchronous consumer class of Channels; handlers stay as
    they are. They run one at a time, in one task. It takes no part in what a class
    that it is named after does in a `dispatch` of its own, and that stays in force.

    Raises `TypeError` when a class is made of a synchronous consumer, or with the mixin
    before a base that has a `dispatch` or `__call__` of its own.
    """

    _has_broadcasts: ClassVar[bool] = False
    _has_own_send: ClassVar[bool] = False
    _database_thread: int | None = None  # where its database calls run, once known

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_bases(cls)
        names = _broadcasts_of(cls)
        if names:
            _check_broadcasts(cls, names)
        cls._has_broadcasts = bool(names)
        cls._has_own_send = any(
            "send" in vars(base) and base not in (AsyncWebsocketConsumer, AsyncConsumer)
            for base in cls.__mro__
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handles the events of one client, and of its channel, until one side ends."""
        self.scope = scope
        layer = channels_consumer.get_channel_layer(self.channel_layer_alias)
        self.channel_layer = layer
        name, layer_receive = "", None
        if layer is not None:
            self.channel_name = name = await layer.new_channel()
            layer_receive = functools.partial(layer.receive, name)
            self.channel_receive = layer_receive
        self.base_send = send
        client = ReceiveLoop(receive)
        messages = LayerMessages(layer, name, layer_receive)
        try:
            await self._handle_events(client, messages)
        except StopConsumer:
            pass
        finally:
            await end(client, *messages.loops)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Calls an event's handler; raises `ValueError` if there is none."""
        handler = getattr(self, get_handler_name(message), None)
        if not handler:
            raise ValueError(f"No handler for message type {message['type']}")
        thread = self._database_thread
        if thread is None or _old_connections.are_due(thread):
            self._database_thread = await _old_connections.close_old_connections()
        await handler(message)

    async def _handle_events(
        self, client: ReceiveLoop, messages: LayerMessages
    ) -> None:
        # Whoever overrides `dispatch` may change messages: then nothing is shared.
        shares = self._has_broadcasts and type(self).dispatch is _DISPATCH
        entry = NOTHING
        while True:
            if client.is_ready:
                await self.dispatch(client.take())
                client.ask_next()
            if entry is not NOTHING:
                if shares:
                    await self._share(entry)
                else:
                    await self.dispatch(opened(entry))
                entry = NOTHING  # an idle consumer must not hold its last message
            # An event that came while a handler ran has woken nobody.
            if not client.is_ready:
                try:
                    entry = await messages.next(client)
                finally:
                    client.on_event = None

    async def _share(self, entry: Entry) -> None:
        """Handles a message as `dispatch` would, with a frame of all of this class."""
        frames, cls = entry[3], type(self)
        # The type of a message names one handler of a class: no other's frame.
        if frames is not None and cls in frames:
            frame = frames[cls]
        else:
            handler = getattr(cls, get_handler_name(entry[1]), None)
            if type(handler) is not Broadcast:
                await self.dispatch(opened(entry))
                return
            frame = await handler.frame(cls, opened(entry))
            if frames is not None:
                frames[cls] = frame
        if frame is not None:
            await self._send_frame(frame)

    def _send_frame(self, frame: str | bytes) -> Any:
        """What to await for a frame to be sent, as `send` (perhaps its own) would."""
        kind = "text" if isinstance(frame, str) else "bytes"
        if self._has_own_send or getattr(self.send, "__func__", None) is not _SEND:
            return self.send(**{f"{kind}_data": frame})
        # What Channels' two `send` would do, without their coroutines.
        return self.base_send({"type": "websocket.send", kind: frame})


_DISPATCH = FastDispatchMixin.dispatch
_SEND = AsyncWebsocketConsumer.send
_SEND_JSON = AsyncJsonWebsocketConsumer.send_json


class Broadcast:
    """A handler that makes one frame of a message, for all members of a class."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._name = getattr(function, "__qualname__", repr(function))
        functools.update_wrapper(self, function)

    def __call__(self, event: Any) -> Any:
        """What the function makes of an event: for its tests."""
        return self._function(event)

    def __set_name__(self, owner: type, name: str) -> None:
        if not issubclass(owner, FastDispatchMixin):
            raise TypeError(
                f"{owner.__qualname__}.{name}: @broadcast needs FastDispatchMixin "
                f"among the bases of its class"
            )

    def __get__(self, consumer: Any, owner: type | None = None) -> Any:
        return self if consumer is None else functools.partial(self.send_own, consumer)

    async def send_own(self, consumer: Any, event: Any) -> None:
        """Sends one consumer the frame of an event, shared with nobody."""
        frame = await self.frame(type(consumer), event)
        if frame is not None:
            await consumer._send_frame(frame)

    async def frame(self, cls: Any, event: Any) -> str | bytes | None:
        """What the members of a class are sent for an event; raises `TypeError`."""
        content = self._function(event)
        if content is None or isinstance(content, (str, bytes)):
            return content
        if not hasattr(cls, "encode_json"):
            raise TypeError(
                f"{self._name} returned {content!r:.100}; a consumer without "
                "encode_json sends str or bytes"
            )
        frame: str = await cls.encode_json(content)
        return frame


def broadcast(function: Callable[[Any], Any]) -> Broadcast:
    """Makes a handler whose frame is made once for each message and process.

    The function takes the event, and no self, since what it returns goes to all members
    of a group: what `encode_json` takes, str or bytes to be sent as they are, or None
    to send nothing. It must depend on nothing but the event. What it raises ends the
    consumer, as with any handler.

    Raises `TypeError` for other functions, and when a class is made with it that has no
    `FastDispatchMixin`, is no WebSocket consumer, overrides `send_json`, or has an
    `encode_json` that is no classmethod.
    """
    bare = function.__func__ if isinstance(function, staticmethod) else function
    name = getattr(bare, "__qualname__", repr(bare))
    if not callable(bare):
        raise TypeError(f"@broadcast takes a function of the event, not {name}")
    if inspect.iscoroutinefunction(bare) or inspect.isasyncgenfunction(bare):
        raise TypeError(f"@broadcast {name}: write def, not async def: it may not wait")
    if not _takes_the_event(bare):
        raise TypeError(
            f"@broadcast {name}: write def {name.split('.')[-1]}(event): what it makes "
            "goes to all members, so it takes no self"
        )
    return Broadcast(bare)


# What classes must be like


def _check_bases(cls: type[FastDispatchMixin]) -> None:
    name = cls.__qualname__
    if cls._sync:
        raise TypeError(
            f"{name} is a synchronous consumer, whose handlers run in threads: "
            f"FastDispatchMixin needs {_asynchronous(cls)} and async handlers"
        )
    after = cls.__mro__[cls.__mro__.index(FastDispatchMixin) + 1 :]
    for base in after:
        for method in ("dispatch", "__call__"):
            if method in vars(base) and base is not AsyncConsumer:
                raise TypeError(
                    f"{name}: {base.__qualname__} has a {method} of its own, which "
                    f"FastDispatchMixin, named before it, would hide; write class "
                    f"{cls.__name__}({base.__name__}, FastDispatchMixin)"
                )


def _asynchronous(cls: type) -> str:
    """The name of the class of Channels to use in place of a synchronous one."""
    names = (b.__name__ for b in cls.__mro__ if b.__module__.startswith("channels."))
    name = next(names)
    return "AsyncConsumer" if name == SyncConsumer.__name__ else f"Async{name}"


def _broadcasts_of(cls: type) -> list[str]:
    """The names of a class's broadcast handlers, inherited ones too."""
    names = {name for base in cls.__mro__ for name in vars(base)}
    return sorted(name for name in names if _is_broadcast(cls, name))


def _is_broadcast(cls: type, name: str) -> bool:
    found = inspect.getattr_static(cls, name)
    if isinstance(found, (staticmethod, classmethod)):
        if isinstance(found.__func__, Broadcast):
            raise TypeError(f"{cls.__qualname__}.{name}: write @broadcast first, above")
        return False
    return isinstance(found, Broadcast)


def _check_broadcasts(cls: Any, names: list[str]) -> None:
    where = f"{cls.__qualname__}.{names[0]}"
    if not issubclass(cls, AsyncWebsocketConsumer):
        raise TypeError(
            f"{where}: @broadcast sends WebSocket frames; use AsyncWebsocketConsumer "
            "or AsyncJsonWebsocketConsumer"
        )
    if getattr(cls, "send_json", _SEND_JSON) is not _SEND_JSON:
        raise TypeError(
            f"{where}: @broadcast doesn't call send_json, which {cls.__qualname__} "
            "overrides; override send or encode_json instead"
        )
    encode = inspect.getattr_static(cls, "encode_json", None)
    if not isinstance(encode, (classmethod, staticmethod, type(None))):
        raise TypeError(
            f"{where}: a frame of @broadcast goes to all members, so encode_json, here "
            "a method of one consumer, must be a classmethod"
        )


def _takes_the_event(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with the event alone, and doesn't want self."""
    try:
        signature = inspect.signature(function)
        signature.bind(None)
    except (TypeError, ValueError):  # the latter: it has no signature
        return False
    return next(iter(signature.parameters)) not in ("self", "cls")
