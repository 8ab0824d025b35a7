"""The demo's site: its pages and what a WebSocket in a room says and hears."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import redis
from websockets import Origin
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from channels_redis_fast.demo.outage import CUTS
from channels_redis_fast.demo.site import KEPT
from support import demos
from support.demos import await_crowd, await_present, chat, get, hear, say
from support.polling import until


@pytest.fixture(scope="module")
def demo() -> Iterator[demos.Demo]:
    """A demo that tests look at and leave as it is."""
    with demos.Demo() as running:
        yield running


def test_page_and_its_files(demo: demos.Demo) -> None:
    for url in demo.urls:
        for path in ("", "room/garden/"):
            with get(url + path) as answer:
                page = answer.read().decode()
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "#garden" in page
        files = re.findall(r"""(?:href|src)="/(static/[^"]+)""", page)
        assert len(files) == 3
        for path in files:
            with get(url + path) as answer:
                assert answer.read()
        assert "http" not in re.sub(r"https?://www\.w3\.org\S+", "", page)


@pytest.mark.parametrize(
    "path", ["static/settings.py", "static/../views.py", "nothing"]
)
def test_nothing_else_is_served(demo: demos.Demo, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(demo.urls[0] + path)
    caught.value.close()
    assert caught.value.code == 404


def test_strangers_are_refused(demo: demos.Demo) -> None:
    request = urllib.request.Request(demo.urls[0], headers={"Host": "example.org"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(request)
    caught.value.close()
    assert caught.value.code == 400
    uri = demo.urls[0].replace("http", "ws") + "ws/room/lobby/"
    with pytest.raises(InvalidStatus):
        connect(uri, origin=Origin("http://example.org"), proxy=None)


def test_members_see_each_other_across_processes(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "seen", "Ada") as ada:
        hear(ada, "here", name="Ada", process="A")
        with chat(demo.urls[1], "seen", "Ben") as ben:
            hear(ben, "here", name="Ada", process="A")
            hear(ada, "here", name="Ben", process="B", arrived=True)
            say(ben, "name", name=" Bert\n")
            hear(ada, "here", name="Bert")
            say(ada, "say", text="hello")
            assert hear(ben, "said")["text"] == "hello"


def test_the_layer_says_who_is_present(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "present") as ada:
        one = hear(ada, "welcome")["id"]
        with chat(demo.urls[1], "present") as ben:
            two = hear(ben, "welcome")["id"]
            await_present(ada, one, two)
            say(ada, "crowd", size=2)
            await_crowd(ada, A=1, B=1)
        await_present(ada, one)  # simulated members are counted by themselves
        say(ada, "crowd", size=0)


def test_who_comes_back_gets_what_was_said_meanwhile(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "missed") as ada:
        with chat(demo.urls[1], "missed") as ben:
            assert hear(ben, "welcome")["replayed"] == 0
            say(ada, "say", text="heard")
            since = hear(ben, "said", text="heard")["position"]
        for number in range(3):
            say(ada, "say", text=f"missed {number}")
            hear(ada, "said", text=f"missed {number}")
        with chat(demo.urls[1], "missed", since=since) as ben:
            welcome = hear(ben, "welcome")
            assert (welcome["recovered"], welcome["replayed"]) == (True, 3)
            say(ada, "say", text="live")
            texts = [hear(ben, "said")["text"] for _ in range(4)]
            assert texts == ["missed 0", "missed 1", "missed 2", "live"]


@pytest.mark.parametrize("since", ["", "nonsense", "\x00\ud7ff@1-1", "9" * 5000])
def test_who_comes_from_nowhere_is_told_of_a_gap(demo: demos.Demo, since: str) -> None:
    with chat(demo.urls[0], "missed", since=since) as one:
        assert hear(one, "welcome")["recovered"] is (since == "")
        say(one, "say", text="here all the same")
        hear(one, "said", text="here all the same")


def test_rooms_do_not_hear_each_other(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "east") as east, chat(demo.urls[1], "west") as west:
        say(east, "say", text="only east")
        hear(east, "said", text="only east")
        say(west, "say", text="only west")
        assert hear(west, "said")["text"] == "only west"


def test_round_trips_are_timed(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "timed") as one, chat(demo.urls[1], "timed"):
        say(one, "ping", number=7)
        assert 0 < hear(one, "pong", number=7)["ms"] < 5000


def test_crowd_comes_listens_and_goes(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "crowd") as one:
        say(one, "crowd", size=61)
        await_crowd(one, A=31, B=30)
        for number in range(20):
            say(one, "ping", number=number)
        until(lambda: hear(one, "crowd", process="B")["rate"] > 0, "the crowd to hear")
        say(one, "crowd", size=0)
        await_crowd(one, A=0, B=0)


def connections_made(demo: demos.Demo) -> int:
    """How many its Valkey was ever asked for."""
    found = re.search(r"redis://\S+", demo.output)
    assert found is not None
    with redis.Redis.from_url(found[0]) as client:
        made: int = client.info("stats")["total_connections_received"]
    return made


@pytest.mark.slow
def test_who_is_cut_off_from_redis_misses_nothing(demo: demos.Demo) -> None:
    here, there = demo.urls
    said: list[str] = []
    with chat(here, "cut") as ada, chat(here, "cut") as eve, chat(there, "cut") as ben:

        def speak() -> None:
            said.append(f"{len(said)}")
            say(ben, "say", text=said[-1])
            hear(ben, "said", text=said[-1])

        def is_cut() -> bool:
            if len(said) < KEPT - 1:
                speak()
            return connections_made(demo) >= enough

        enough = connections_made(demo) + 2 * CUTS  # what sends, what waits
        say(eve, "cut")
        say(eve, "cut")
        assert "already" in hear(eve, "error")["detail"]
        until(is_cut, "the connections to be cut", pause=0.03)
        restored = hear(eve, "restored")
        assert restored["recovered"]
        assert restored["said"] <= len(said)
        speak()
        assert [hear(ada, "said")["text"] for _ in said] == said


WRONG_FRAMES = [
    "",
    "hello",
    "[]",
    "7",
    "{}",
    '{"type": "no_such"}',
    '{"type": ["say"]}',
    '{"type": "say"}',
    '{"type": "say", "text": ""}',
    '{"type": "say", "text": 5}',
    json.dumps({"type": "say", "text": "x" * 1001}),
    '{"type": "say", "text": "\\ud83d"}',  # half an emoji
    '{"type": "name", "name": "\\ud83d"}',
    '{"type": "ping", "number": 18446744073709551616}',
    '{"type": "ping", "number": ' + "9" * 5000 + "}",
    '{"type": "say", "text": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"type": "name", "name": " \\n"}',
    '{"type": "ping", "number": "one"}',
    '{"type": "crowd", "size": -1}',
    '{"type": "crowd", "size": 1001}',
    '{"type": "crowd", "size": null}',
    '{"type": "kill"}',
    '{"type": "kill", "process": "C"}',
    '{"type": "kill", "process": ["A"]}',
    b"\x00\xff",
]


def test_wrong_frames_are_refused(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "wrong") as one:
        for number, frame in enumerate(WRONG_FRAMES):
            one.send(frame)
            assert hear(one, "error")["detail"], frame
            say(one, "say", text=f"still here {number}")
            hear(one, "said", text=f"still here {number}")


def test_a_room_s_name_that_is_too_long(demo: demos.Demo) -> None:
    for length in 60, 61, 100, 1000:
        room = "x" * length
        if length == 60:
            with chat(demo.urls[0], room) as one:
                say(one, "say", text="hello")
                hear(one, "said", text="hello")
            continue
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{demo.urls[0]}room/{room}/")
        caught.value.close()
        assert caught.value.code == 404
        uri = demo.urls[0].replace("http", "ws") + f"ws/room/{room}/"
        origin = Origin(demo.urls[0].rstrip("/"))
        with connect(uri, origin=origin, proxy=None) as one:
            assert "at most 60" in hear(one, "error")["detail"]
            with pytest.raises(ConnectionClosedError) as closed:
                one.recv(timeout=20)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


@pytest.mark.slow
def test_who_vanishes_amid_a_flood_leaves_the_room(demo: demos.Demo) -> None:
    with chat(demo.urls[0], "flood") as stays:
        one = hear(stays, "welcome")["id"]
        for number in range(5):
            with chat(demo.urls[number % 2], "flood", f"guest-{number}") as guest:
                await_present(stays, one, hear(guest, "welcome")["id"])
                for _ in range(50):
                    say(stays, "say", text="flood")
                # Without a closing handshake, and with messages still to come.
                guest.socket.shutdown(socket.SHUT_RDWR)
                await_present(stays, one)
