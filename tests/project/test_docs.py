"""The pages say what the code does: nothing is missing, wrong, or said twice."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import channels.exceptions
import channels.layers
import pytest
from django.utils.module_loading import import_string

from channels_redis_fast import exceptions, serializers
from channels_redis_fast.client.host_settings import DEFAULT_HOSTS
from support.paths import DOCS, README, ROOT
from support.servers import Server
from support.syncing import KINDS

PACKAGE = ROOT / "channels_redis_fast"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
CODE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UNITS = {"s": 1, "messages": 1, "bytes": 1, "MiB": 2**20}
UNSHOWN = "as above"


def section(page: Path, title: str) -> str:
    """What stands under a heading."""
    _, _, rest = page.read_text().partition(f"# {title}\n")
    assert rest, f"{page.name} has no section {title!r}"
    found, _, _ = rest.partition("\n## ")
    return found


def rows(text: str) -> Iterator[list[str]]:
    """The cells of the tables in a text, without their heads."""
    tables = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    for line in "".join(tables).splitlines():
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(cell: str) -> list[str]:
    """The words of code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# What must not be missing


def value(text: str) -> Any:
    """A default as the page has it."""
    if text == "none":
        return None
    number, _, unit = text.strip("`").replace(",", "").partition(" ")
    if unit in UNITS:
        return int(number) * UNITS[unit]
    return ast.literal_eval(text.strip("`"))


def defaults(layer: type) -> dict[str, Any]:
    """The options of a layer's class; {} and the host stand for None, as they act."""
    parameters = inspect.signature(layer).parameters.values()
    found = {one.name: one.default for one in parameters if one.kind != one.VAR_KEYWORD}
    return found | {"hosts": list(DEFAULT_HOSTS), "channel_capacity": {}}


@pytest.mark.parametrize(("kind", "title"), [("core", "Core"), ("pubsub", "Pub/Sub")])
def test_every_option_has_its_row(kind: str, title: str) -> None:
    known, shown = defaults(KINDS[kind]), set()
    for options, default, _ in rows(section(DOCS / "options.md", title)):
        values = [] if default == UNSHOWN else default.split(", ")
        for number, option in enumerate(names(options)):
            shown.add(option)
            if values:
                said = values[number] if len(values) > 1 else values[0]
                assert value(said) == known[option], option
    assert shown == set(known)


def bases(cell: str) -> set[type]:
    """The classes that a cell names, of ours or Python's."""
    found = (getattr(exceptions, n, getattr(builtins, n, None)) for n in names(cell))
    return {one for one in found if one}


def test_every_exception_has_its_row() -> None:
    shown = {
        names(name)[0]: bases(also)
        for name, also, _ in rows(section(DOCS / "errors.md", "What is raised"))
    }
    ours = {n: c for n, c in vars(exceptions).items() if isinstance(c, type)}
    ours["MessageTooLarge"] = KINDS["core"].MessageTooLarge
    assert shown.keys() == ours.keys() | {"ChannelFull"}
    for name, exception in ours.items():
        assert shown[name], name
        assert issubclass(exception, tuple(shown[name])), name
        assert all(issubclass(exception, base) for base in shown[name]), name
    assert KINDS["core"].ChannelFull is channels.exceptions.ChannelFull


def test_every_make_target_has_its_row() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    targets = re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    shown = re.findall(r"^\| `make (\S+)` \|", CONTRIBUTING.read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(" ".join(targets).split())


def test_every_variable_has_its_row() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    used = set(re.findall(r'environ\.get\(\s*"((?:TEST_|CI)\w*)"', "\n".join(texts)))
    shown = {
        names(cells[0])[0] for cells in rows(section(CONTRIBUTING, "Build and test"))
    }
    assert used == {name for name in shown if not name.startswith("make ")}


def test_every_counter_has_its_row() -> None:
    text = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    used = re.findall(r'\.count\("([^"]+)"', text)
    used += re.findall(
        r'^(?:FULL|FAILED|FOR_NOBODY|UNREADABLE) = "(.+)"', text, re.MULTILINE
    )
    shown = rows(section(DOCS / "operations.md", "What to watch"))
    assert len(set(used)) > 6
    assert {*used} <= {name for cells in shown for name in names(cells[0])}


def test_every_warning_has_its_row() -> None:
    text = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    used = re.findall(r'\bwarn\(\s*"([^"]+)"', text)
    assert len(used) > 6
    table = rows(section(DOCS / "operations.md", "What to watch"))
    shown = [line for cells in table for line in names(cells[0])]
    for template in used:
        # As shown: a word for each value, or dots at the end.
        parts = map(re.escape, re.split("%[sd]", template))
        line = re.compile(r"\S+".join(parts).removesuffix(r"\S+") + r".*")
        assert any(map(line.fullmatch, shown)), template


# What must be right


def examples() -> Iterator[Any]:
    """The Python in the pages; that of the quickstart makes a site of its own."""
    for page in PAGES:
        for number, (kind, text) in enumerate(CODE.findall(page.read_text())):
            if kind == "python" and page.stem != "quickstart":
                yield pytest.param(text, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("text", list(examples()))
def test_examples(text: str, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run, and settings are settings."""
    layer = KINDS["core"](hosts=[valkey.url])
    monkeypatch.setattr(channels.layers, "get_channel_layer", lambda: layer)
    monkeypatch.setattr(serializers.registry, "_registry", {})
    names: dict[str, Any] = {"__name__": "example"}
    exec(text, names)
    monkeypatch.undo()
    for config in names.get("CHANNEL_LAYERS", {}).values():
        assert import_string(config["BACKEND"])(**config["CONFIG"]).hosts
    if "message" in names:
        assert names["message"] == {"type": "resize", "id": 1}
    layer.sync.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_matrix_is_as_large() -> None:
    cells = re.findall(r"Cell\(\"3\.(\d+)t?\"", (ROOT / ".ci/noxfile.py").read_text())
    text = CONTRIBUTING.read_text()
    assert f"in {len(cells)} combinations of versions" in text
    assert f"Python 3.10 to 3.{max(map(int, cells))}," in text


def test_the_readme_is_short() -> None:
    assert README.stat().st_size <= 6 * 1024


# What must not be said twice


def sentences(page: Path) -> set[str]:
    """Those of a page, in one line each; not code, nor headings."""
    text = CODE.sub("\n\n", page.read_text())
    blocks = re.split(r"\n\s*\n|^[*#>] |^\d\. |\|", text, flags=re.MULTILINE)
    lines = (" ".join(block.split()) for block in blocks)
    return {one for line in lines for one in re.split(r"(?<=[.:;?!]) ", line)}


def test_no_sentence_stands_in_two_places() -> None:
    counts = Counter(one for page in PAGES for one in sentences(page))
    assert len(counts) > 500
    assert [one for one, often in counts.items() if often > 1 and len(one) > 45] == []
