"""What a server is, asked once; and in plain words why it can't be connected to."""

from __future__ import annotations

from typing import Any

import redis

_OLDEST = 5


class ServerCheck:
    """Whether a host's server is one that this package can use; asked once a process.

    It may keep that to itself: users need no right to INFO.
    """

    def __init__(self) -> None:
        self.is_done = False

    async def ask(self, connection: Any, host: object) -> None:
        """Raises `ResponseError` for a Sentinel, and for Redis before 5.0."""
        await connection.send_command("INFO", "server")
        try:
            reply = await connection.read_response()
        except redis.ResponseError:
            reply = b""
        self._judge(reply, host)

    def ask_blocking(self, connection: Any, host: object) -> None:
        """The same."""
        connection.send_command("INFO", "server")
        try:
            reply = connection.read_response()
        except redis.ResponseError:
            reply = b""
        self._judge(reply, host)

    def _judge(self, reply: Any, host: object) -> None:
        text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
        lines = (line.partition(":") for line in str(text).splitlines())
        facts = {name: value for name, _, value in lines}
        version = facts.get("redis_version", "")
        major = version.partition(".")[0]
        if facts.get("redis_mode") == "sentinel":
            raise redis.ResponseError(
                f"{host} is a Sentinel: name it in an entry of `hosts` as "
                "{'sentinels': [(host, port)], 'master_name': name}"
            )
        if major.isdecimal() and int(major) < _OLDEST:
            raise redis.ResponseError(
                f"Redis {_OLDEST}.0 or later is needed: {host} is {version}"
            )
        self.is_done = True


def plain_words(error: redis.RedisError | OSError, host: object) -> redis.RedisError:
    """The error of redis-py for one that came while connecting."""
    if isinstance(error, OSError):
        return redis.ConnectionError(str(error))
    return error
