"""What a server is, asked once; and in plain words why it can't be connected to."""

from __future__ import annotations

from typing import Any

import redis

_OLDEST = 5
# What redis-py says when a server closes while it is greeted. The server may have said
# why, but what comes with a reset can't be read any more.
_CUT_OFF = ("closed by server", "while writing to socket", "Connection reset")


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
        if "sentinel" in (facts.get("redis_mode"), facts.get("server_mode")):
            raise redis.ResponseError(
                f"{host} is a Sentinel: name it in an entry of `hosts` as "
                "{'sentinels': [(host, port)], 'master_name': name}"
            )
        if major.isdecimal() and int(major) < _OLDEST:
            raise redis.ResponseError(
                f"Redis {_OLDEST}.0 or later is needed: {host} is {version}"
            )
        self.is_done = True


async def hear_last_words(connection: Any) -> None:
    """What redis-py does on a new connection; raises what the server said if it ends.

    One with `maxclients` connections says so, and closes; redis-py, which is about to
    write, only notes that it can't.
    """
    reader = connection._reader
    try:
        await connection.on_connect()
    except (redis.ConnectionError, OSError):
        said = bytes(reader._buffer)
        if not said.startswith(b"-"):
            raise
        raise redis.ConnectionError(
            said[1:].decode("utf-8", "replace").strip()
        ) from None


def plain_words(
    error: redis.RedisError | OSError, host: object, is_tls: bool
) -> redis.RedisError:
    """An error that came while connecting, as redis-py's, and what it may mean."""
    text = str(error)
    is_silence = isinstance(error, (redis.TimeoutError, TimeoutError))
    if is_tls and (is_silence or "WRONG_VERSION_NUMBER" in text):
        text = f"{text} (TLS is asked for: does the server at {host} speak it?)"
    elif not is_tls and any(words in text for words in _CUT_OFF):
        text = f"{text} ({host} may speak TLS, or have reached its maxclients)"
    elif not isinstance(error, OSError):
        return error
    kind = redis.ConnectionError if isinstance(error, OSError) else type(error)
    return kind(text)
