"""A proxy whose server answers some commands as another server would."""

from __future__ import annotations

import time
from collections.abc import Iterable

import hiredis

from support.proxy import Proxy, Target
from support.refusing import RefusingFlow

_TEXT = (b"EVAL", b"return ARGV[1]", 0)
_LIST = (b"EVAL", b"return ARGV", 0)
_ERROR = (b"EVAL", b"return redis.error_reply(ARGV[1])", 0)


class AnsweringFlow(RefusingFlow):
    """Requests; `answers` has, by verb, what is asked in its place."""

    answers: dict[bytes, tuple[object, ...]] = {}

    def _turned(self, command: list[bytes]) -> bytes:
        asked = self.answers.get(command[0].upper(), tuple(command))
        return bytes(hiredis.pack_command(asked))


class AnsweringProxy(Proxy):
    """Lets a server pass for another one."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.requests: AnsweringFlow = AnsweringFlow(self)
        self.answers: dict[bytes, tuple[object, ...]] = {}
        self.requests.answers = self.answers

    def say(self, verb: bytes, text: str) -> None:
        """Answers a command with a text."""
        self.answers[verb] = (*_TEXT, text)

    def refuse_to(self, verb: bytes, error: str) -> None:
        """Answers a command with an error."""
        self.answers[verb] = (*_ERROR, error)

    def be_ahead(self, seconds: float) -> None:
        """Has the server's clock this much ahead, as TIME tells it."""
        self.answers[b"TIME"] = (*_LIST, *_clock(time.time() + seconds))


def _clock(now: float) -> Iterable[str]:
    return str(int(now)), str(int(now % 1 * 1e6))
