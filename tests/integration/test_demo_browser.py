"""The demo's page in a real browser: two pages, one on each server process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from websockets.sync.client import ClientConnection

from channels_redis_fast.demo.outage import CUTS
from support import demos
from support.browsers import browser
from support.demos import chat, hear, say
from support.polling import until
from support.proxy import Proxy

pytestmark = pytest.mark.slow

# All that is said in one test is less than the demo keeps, so that none is a gap.
KILLS, SAID_EACH_TIME = 11, 8
BETWEEN = 170  # bytes; from the handshake's answer to all that is replayed


class Page:
    """One browser with the room open on one server process."""

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        driver.get(url)
        until(lambda: self.text("status") == "connected", "the page to connect")

    def text(self, name: str) -> str:
        """What is to be read in the element with this id."""
        return self.driver.find_element(By.ID, name).text

    def write(self, name: str, text: str) -> None:
        """Type into a field, then Enter."""
        field = self.driver.find_element(By.ID, name)
        field.clear()
        field.send_keys(text, Keys.ENTER)

    def shows(self, name: str, text: str) -> None:
        """Wait until the text is to be read in the element with this id."""
        until(lambda: text in self.text(name), f"{text!r} in #{name}")

    def line(self, name: str) -> str:
        """What is drawn of one of the chart's lines."""
        # In one step: the page draws anew between two.
        script = "return document.querySelector(arguments[0])?.getAttribute('d') ?? ''"
        drawn: str = self.driver.execute_script(script, f"#chart .{name}")
        return drawn

    def said(self, word: str) -> list[str]:
        """What it shows of what was said, beginning with this word."""
        script = (
            "return [...document.querySelectorAll('.said p')].map(p => p.innerText)"
        )
        texts: list[str] = self.driver.execute_script(script)
        return [text for text in texts if text.startswith(word)]

    def press(self, button: str) -> None:
        """Press a button, named by a selector."""
        self.driver.find_element(By.CSS_SELECTOR, f"button{button}").click()

    def complaints(self) -> Any:
        """What the browser's console says."""
        return self.driver.get_log("browser")  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def demo() -> Iterator[demos.Demo]:
    """One for all of these tests."""
    with demos.Demo() as running:
        yield running


@pytest.fixture(scope="module")
def pages(
    demo: demos.Demo, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Page]]:
    """The page of process A and that of process B, each in a browser of its own."""
    with ExitStack() as stack:
        opened = []
        for url in demo.urls:
            profile = tmp_path_factory.mktemp("profile")
            driver = stack.enter_context(browser(profile))
            opened.append(Page(driver, url))
        yield opened


def test_what_one_page_writes_the_other_shows(pages: list[Page]) -> None:
    here, there = pages
    here.write("text", "hello over there")
    there.shows("log", "hello over there")
    there.write("text", "<b>hello</b> & back")
    here.shows("log", "<b>hello</b> & back")


def test_pages_show_who_is_here(pages: list[Page]) -> None:
    here, there = pages
    here.write("name", "Ada Lovelace")
    there.write("name", "Emmy Noether")
    there.shows("here", "Ada Lovelace")
    here.shows("here", "Emmy Noether")
    here.shows("here", "Ada Lovelace (you)")
    assert here.text("count") == there.text("count") == "2"


def test_who_leaves_is_no_longer_here(pages: list[Page]) -> None:
    here, there = pages
    there.driver.refresh()
    here.shows("log", "is gone")
    until(lambda: here.text("count") == "2", "the page to come back")


def test_slider_adds_members_and_the_chart_draws(pages: list[Page]) -> None:
    here, there = pages
    slider = here.driver.find_element(By.ID, "crowd")
    slider.send_keys(Keys.ARROW_RIGHT * 6)
    assert here.text("crowd-size") == "60"
    for page in pages:
        page.shows("crowd-note", "60 simulated members: 30 on A, 30 on B")
    there.shows("crowd-size", "60")
    for page in pages:
        for name in ("p50", "p99"):
            page.shows(name, "ms")
            until(lambda page=page, name=name: "L" in page.line(name), "a line")
        until(lambda page=page: page.line("members"), "the area of the members")
        until(lambda page=page: page.text("rate") not in ("", "0"), "the rate")
    slider.send_keys(Keys.HOME)
    until(lambda: not here.text("crowd-note"), "the members to leave")


def test_link_leads_to_the_other_process(pages: list[Page]) -> None:
    here, there = pages
    link = here.driver.find_element(By.CSS_SELECTOR, "a.process[data-process=B]")
    assert link.get_attribute("href") == there.driver.current_url


def test_browser_has_nothing_to_complain_of(pages: list[Page]) -> None:
    for page in pages:
        assert page.complaints() == []


class Speaker:
    """Says one thing after the other in a room, and keeps account."""

    def __init__(self, connection: ClientConnection, word: str) -> None:
        self.said: list[str] = []
        self._connection = connection
        self._word = word

    def speak(self, most: int) -> None:
        """Say one thing more, up to so many in all, and hear it come back."""
        if len(self.said) < most:
            self.said.append(f"{self._word} {len(self.said)}")
            say(self._connection, "say", text=self.said[-1])
            hear(self._connection, "said", text=self.said[-1])


def test_unplugged_page_gets_what_it_missed(
    demo: demos.Demo, pages: list[Page]
) -> None:
    here, _ = pages
    here.press("#unplug")
    here.shows("status", "disconnected")
    with chat(demo.urls[1]) as one:
        speaker = Speaker(one, "unplugged")
        for _ in range(3):
            speaker.speak(3)
        here.shows("log", "3 messages replayed")
        speaker.speak(4)
        here.shows("log", speaker.said[-1])
    assert here.said("unplugged") == speaker.said


def test_page_is_killed_again_and_again(demo: demos.Demo, tmp_path: Path) -> None:
    server = SimpleNamespace(host=Proxy.host, port=urlsplit(demo.urls[0]).port)
    with (
        Proxy(server) as proxy,
        chat(demo.urls[1], "killed") as one,
        browser(tmp_path) as driver,
    ):
        page = Page(driver, f"http://{proxy.host}:{proxy.port}/room/killed/")
        speaker = Speaker(one, "killed")

        def is_back() -> bool:
            speaker.speak((kill + 1) * SAID_EACH_TIME)
            return proxy.accepted > accepted

        for kill in range(KILLS):
            accepted = proxy.accepted
            proxy.replies.cut_after(kill * BETWEEN)
            until(is_back, "the page to connect again")
        page.shows("log", speaker.said[-1])
        assert page.said("killed") == speaker.said
        page.shows("log", "messages replayed")


def test_process_is_cut_off_from_redis(demo: demos.Demo, pages: list[Page]) -> None:
    here, _ = pages
    with chat(demo.urls[1]) as one:
        speaker = Speaker(one, "cut")
        here.press("#cut")

        def is_restored() -> bool:
            speaker.speak(90)
            return f"cut off from Redis {CUTS} times" in here.text("log")

        until(is_restored, "the process to be connected again")
        here.shows("log", speaker.said[-1])
    assert here.said("cut") == speaker.said
    assert "said meanwhile, none is missing" in here.text("log")


def test_members_of_a_killed_process_go(pages: list[Page]) -> None:
    here, there = pages
    there.write("name", "Emmy Noether")
    here.shows("here", "Emmy Noether")
    until(lambda: here.text("count") == "2", "both to be counted")
    here.press(".kill[data-process=B]")
    there.shows("status", "disconnected")
    until(lambda: here.text("count") == "1", "the other to be gone")
    here.shows("log", "Process B was killed")
    here.shows("log", "Emmy Noether is gone")
    until(lambda: there.text("status") == "connected", "it to start again", timeout=30)
    until(lambda: here.text("count") == "2", "the other to be back")
