"""Imports point down only, every module imports alone, and no file grows too long."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "channels_redis_fast"
SOURCES = ROOT / "src"
NAME = "channels_redis_fast"

# Lowest first. A module may import from its own layer and from those below. Compiled
# modules raise the package's errors and ask for keys, so these are down there too.
LAYERS = (
    {
        *(path.stem for path in SOURCES.glob("*.pyx")),
        *("_forks", "_keys", "_logs", "_version", "exceptions"),
    },
    {
        *("_blocking", "_cluster", "_codec", "_connection", "_counters", "_hosts"),
        *("_link", "_pipe", "_scripts", "_settings", "_shard", "_slots"),
        *("client", "commands", "serializers"),
    },
    {
        *("_bulk", "_groups", "_inline", "_layer", "_local", "_local_pubsub"),
        *("_loops", "_mailbox", "_mailboxes", "_operations", "_outage", "_outbox"),
        *("_popping", "_publisher", "_reader", "_receiver", "_subscriber", "_topics"),
        *("_waiters", "mailboxes"),
    },
    {"core", "pubsub", "sync", "utils"},
    {"_events", "_old_connections", "consumers"},
    {"__main__", "demo"},
)
# What the layers may not even know of.
ROOMS = {"commands": {"asyncio", "hiredis", "socket", "channels", "django"}}
STRANGERS = {
    0: {"asyncio", "channels", "django", "hiredis", "redis", "socket", "threading"},
    1: {"channels", "django"},
    2: {"django"},
    3: {"django"},
}


def _module(path: Path) -> str:
    relative = path.relative_to(PACKAGE if PACKAGE in path.parents else SOURCES)
    return ".".join(relative.with_suffix("").parts)


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))} | {
    _module(path): path for path in sorted(SOURCES.glob("*.pyx"))
}
INIT = "__init__"


def _layer(module: str) -> int:
    """The layer of a module; the package itself stands on the compiled modules."""
    if module == INIT:
        return 0
    for number, members in enumerate(LAYERS):
        if module.partition(".")[0] in members:
            return number
    pytest.fail(f"{module} is in no layer: put it into one of LAYERS")


def _imports(module: str) -> Iterator[str]:
    """The dotted names of what a module imports, anywhere in it."""
    path = MODULES[module]
    if path.suffix == ".pyx":
        text = path.read_text()
        for name in re.findall(r'^include "(.+)"', text, re.MULTILINE):
            text += (SOURCES / name).read_text()
        yield from re.findall(r"^(?:from|c?import) ([\w.]+)", text, re.MULTILINE)
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = [NAME, *module.split(".")][: -node.level]
                base = ".".join([*above, *([base] if base else [])])
            yield base
            # `from . import x` may mean a module.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _ours(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = {name.removeprefix(f"{NAME}.") for name in _imports(module)}
    return (found & MODULES.keys()) - {INIT}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    layer = _layer(module)
    upward = {name for name in _ours(module) if _layer(name) > layer}
    assert not upward, f"{module} (layer {layer}) imports {upward} from above"


@pytest.mark.parametrize("module", MODULES)
def test_layers_know_no_strangers(module: str) -> None:
    known = {name.partition(".")[0] for name in _imports(module)}
    strangers = STRANGERS.get(_layer(module), set())
    strangers = strangers | ROOMS.get(module.partition(".")[0], set())
    if module == "_layer":
        strangers = strangers - {"channels"}  # the base class
    assert not known & strangers


def test_no_cycles() -> None:
    below: dict[str, set[str]] = {module: _ours(module) for module in MODULES}
    below.pop(INIT)
    while free := {module for module, needed in below.items() if not needed}:
        for module in free:
            del below[module]
        for needed in below.values():
            needed -= free
    assert not below, f"these import each other: {below}"


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if not m.startswith(("demo.settings", "__main__"))],
)
@pytest.mark.slow
def test_imports_alone(module: str) -> None:
    """In a fresh interpreter, with warnings as errors."""
    name = f"{NAME}.{module}".removesuffix(f".{INIT}")
    code = f"import {name}"
    if module.startswith("demo."):
        settings = f"{NAME}.demo.settings"
        code = f"import os; os.environ['DJANGO_SETTINGS_MODULE'] = {settings!r}; {code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_no_assert_in_what_is_shipped(module: str) -> None:
    """Under `python -O` it would not be there."""
    path = MODULES[module]
    if path.suffix == ".pyx":
        assert not re.search(r"^\s*assert\b", path.read_text(), re.MULTILINE)
    else:
        nodes = ast.walk(ast.parse(path.read_text()))
        assert [n.lineno for n in nodes if isinstance(n, ast.Assert)] == []


@pytest.mark.parametrize("folder", ["channels_redis_fast", "src", "tests", "bench"])
def test_files_are_short(folder: str) -> None:
    patterns = ("*.py", "*.pyi", "*.pyx", "*.pxi")
    paths = [path for each in patterns for path in (ROOT / folder).rglob(each)]
    lengths = {path.name: len(path.read_text().splitlines()) for path in paths}
    assert lengths
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_every_compiled_module_has_its_stub_and_test() -> None:
    for path in SOURCES.glob("*.pyx"):
        assert (PACKAGE / f"{path.stem}.pyi").is_file()
        assert (ROOT / "tests" / f"test{path.stem}.py").is_file()
