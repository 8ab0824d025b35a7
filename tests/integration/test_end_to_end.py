"""The benchmark of messages to browsers accounts for every frame."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support.paths import README, ROOT

BENCH = ROOT / "bench" / "end_to_end"
sys.path.append(str(BENCH))

import browsers  # noqa: E402
import clients  # noqa: E402
import measure  # noqa: E402
from rows import ROWS, TARGETS, Row  # noqa: E402

import headline  # noqa: E402


class Crowd(clients.Crowd):
    """Clients without sockets."""

    def __init__(self, members: int, groups: int = 1) -> None:
        self._read, write = os.pipe()
        super().__init__(write)
        self._groups = groups
        self._sockets = [clients.Socket(self, "/", n) for n in range(members)]

    @property
    def sockets(self) -> list[Any]:
        return self._sockets

    def done(self) -> int:
        """How many messages all have, as the sender is told; once."""
        os.write(self._done, b"!")
        found = len(os.read(self._read, 1000)) - 1
        os.close(self._read)
        os.close(self._done)
        return found


def frame(number: int, size: int = 3) -> bytes:
    text = json.dumps({"n": number, "text": "x" * size}).encode()
    if len(text) < 126:
        return bytes((0x81, len(text))) + text
    if len(text) < 1 << 16:
        return bytes((0x81, 126)) + len(text).to_bytes(2, "big") + text
    return bytes((0x81, 127)) + len(text).to_bytes(8, "big") + text


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100_000])
async def test_frames_come_in_any_pieces(step: int) -> None:
    crowd = Crowd(1)
    await crowd.expect(5)
    socket = crowd.sockets[0]
    sizes = (3, 80, 200) if step < 7 else (3, 80, 200, 70_000)
    data = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n"
    data += b"".join(frame(5 + n, size) for n, size in enumerate(sizes))
    for begin in range(0, len(data), step):
        socket.data_received(data[begin : begin + step])
    assert socket.opened.done()
    found = await crowd.collect(len(sizes))
    assert (found["received"], found["lost"], found["wrong"]) == (len(sizes), 0, 0)
    assert crowd.done() == len(sizes)


async def test_what_is_lost_doubled_or_overtaken_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "IDLE", 0.05)
    crowd = Crowd(4, groups=2)
    await crowd.expect(10)
    first, second, third, fourth = crowd.sockets  # two in each group
    for socket in (first, third):
        for number in (10, 12, 14):
            crowd.take(socket, number)
    for number in (11, 15, 13):  # 13 was overtaken, so it is no more than wrong
        crowd.take(second, number)
    for number in (11, 11, 13):  # doubled; and 15 is lost
        crowd.take(fourth, number)
    found = await crowd.collect(6)
    assert found["received"] == 3 + 3 + 2 + 2
    assert found["lost"] == 2
    assert found["wrong"] == 3
    assert crowd.done() == 4  # 10, 12, 14 and 11


async def test_a_refused_socket_says_so() -> None:
    crowd = Crowd(1)
    socket = crowd.sockets[0]
    socket.data_received(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    with pytest.raises(ConnectionError, match="403 Forbidden"):
        await socket.opened
    crowd.done()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["uvicorn", "daphne", "granian"])
def test_a_short_run(server: str) -> None:
    """Real processes: everything arrives at each kind of consumer."""
    row = Row("few", "few", 6, (), groups=2, server=server)
    kinds = ("core plain", "core mixin", "bare plain")
    with measure.Bench(0.05) as bench:
        for name in kinds if server == "uvicorn" else kinds[1:2]:
            one = row if not name.startswith("bare") else Row("a", "a", 6, ())
            found = bench.measure(one, name)
            assert "failure" not in found, found
            assert (found["lost"], found["wrong"], found["closed"]) == (0, 0, 0)
            assert found["rate"] > 0
            assert found["p99"] >= found["p50"] > 0
        if server == "uvicorn":
            talk = Row("talk", "talk", 3, (), measures="answers")
            assert bench.measure(talk, "core mixin")["answers"] > 0
            idle = Row("idle", "idle", 3, (), measures="memory")
            assert "memory" in bench.measure(idle, "core mixin")
            broken = bench.measure(row, "core nothing")
            assert "failure" in broken


def figures(value: float) -> list[dict[str, float]]:
    keys = ("rate", "cpu", "half_cpu", "p50", "p99", "answers", "memory")
    return [dict.fromkeys(keys, value + n) for n in range(3)]


def test_the_report_has_every_row(tmp_path: Path) -> None:
    found = {
        row.name: {name: figures(10.0 + n) for n, name in enumerate(row.contenders)}
        for row in ROWS
    }
    found["group-100"]["core mixin"][1]["lost"] = 7
    about = dict.fromkeys(("date", "commit", "cpu", "python", "cpus", "rounds"), "?")
    data = {**about, "load": [0.1], "packages": {}, "servers": {}, "rows": found}
    text = "\n".join(browsers.report(data))
    for row in ROWS:
        assert row.title.lower() in text.lower()
    assert "7 lost" in text
    assert sum("reached" in line or "missed" in line for line in text.split("\n")) == (
        len(TARGETS)
    )
    for page, lines, row in (
        (README, browsers.headline(data), "| channels_redis core |"),
        (headline.PERFORMANCE, browsers.summary(data), "| **channels_redis core**,"),
    ):
        copy = tmp_path / page.name
        copy.write_text(page.read_text())
        mark = browsers.MARKS[page]
        headline.put(lines, copy, mark)
        assert row in copy.read_text()
        assert len(copy.read_text()) - len(page.read_text()) < 5_000
        once = copy.read_text()
        headline.put(["(nothing)"], copy, mark)
        assert row not in copy.read_text()
        assert once.startswith(copy.read_text().partition("(nothing)")[0])
        assert once.endswith(copy.read_text().partition("(nothing)")[2])


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- begin -->\n")
    with pytest.raises(ValueError, match="end of begin"):
        headline.put([], page, "begin")


def test_targets_are_of_rows_that_are_measured() -> None:
    rows = {row.name: row for row in ROWS}
    for target in TARGETS:
        assert {target.ours, target.other} <= set(rows[target.row].contenders), target


def test_some_rows_can_be_chosen() -> None:
    rows = list(measure.chosen(["granian"], False))
    assert [row.name for row in rows] == ["granian"]
    (row,) = measure.chosen(["group-100 core mixin"], True)
    assert (row.contenders, row.clients) == (("core mixin",), measure.QUICK)
    assert len(list(measure.chosen([], False))) == len(ROWS)
