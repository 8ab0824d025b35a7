"""Rooms import what is below them, each module alone, and no file grows too long."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import ROOT

PACKAGE = ROOT / "channels_redis_fast"
SOURCES = ROOT / "src"
NAME = "channels_redis_fast"

# Each room, and what it may import from beside itself: a new file needs no entry.
WIRE = {"ground"}
SETTINGS = WIRE | {"wire"}
COMMANDS = SETTINGS | {"settings"}
CLIENT = COMMANDS | {"commands"}
SOURCES_OF_MESSAGES = CLIENT | {"client", "mailboxes"}
RUNTIME = SOURCES_OF_MESSAGES | {"polling"}
BASE = RUNTIME | {"runtime"}
PARTS = BASE | {"base", "subscriptions"}
DOORS = PARTS | {"parts"}
CONSUMERS = DOORS | {"doors"}
ROOMS = {
    "ground": set(),
    "wire": WIRE,
    "commands": COMMANDS,
    "client": CLIENT,
    "mailboxes": SETTINGS,
    "polling": SOURCES_OF_MESSAGES,
    "subscriptions": SOURCES_OF_MESSAGES,
    "runtime": RUNTIME,
    "settings": SETTINGS,
    "base": BASE,
    "parts": PARTS,
    "doors": DOORS,
    "consumers": CONSUMERS,
    "diagnosis": CONSUMERS,
    "checks": DOORS,
    "contrib": CONSUMERS,
    "demo": CONSUMERS | {"consumers", "diagnosis"},
    "management": CONSUMERS | {"consumers", "diagnosis", "demo"},
}
# The modules that are in no folder.
OUTSIDE = {
    **dict.fromkeys(
        [
            "_counting",
            "_logs",
            "_masking",
            "_overload",
            "_version",
            "exceptions",
            "types",
        ],
        "ground",
    ),
    "_settings": "settings",
    **dict.fromkeys(["_base", "_hooks", "_options", "_overlaps"], "base"),
    **dict.fromkeys(["_core_parts", "_group_calls", "_listener", "_liveness"], "parts"),
    **dict.fromkeys(["_observing", "_pubsub_names", "_pubsub_parts"], "parts"),
    **dict.fromkeys(["_history_parts", "_replay"], "parts"),
    **dict.fromkeys(["core", "pubsub", "sync", "serializers", "utils"], "doors"),
    **dict.fromkeys(
        ["consumers", "signals", "_events", "_old_connections"], "consumers"
    ),
    "apps": "checks",
    "__main__": "demo",
}

# What a room may not even know of.
NETWORK = {"hiredis", "socket"}
FRAMEWORKS = {"channels", "django"}
STRANGERS = {
    "ground": {"asyncio", "redis"} | NETWORK | FRAMEWORKS,
    "wire": {"asyncio", "redis"} | NETWORK | FRAMEWORKS,
    "commands": {"asyncio", "django"} | NETWORK,
    "client": FRAMEWORKS,
    "mailboxes": {"redis", "django"} | NETWORK,
    "polling": FRAMEWORKS,
    "subscriptions": FRAMEWORKS,
    "runtime": FRAMEWORKS,
    "settings": {"asyncio", "redis"} | NETWORK | FRAMEWORKS,
    "base": {"django"},
    "parts": {"django"},
    "doors": {"django"},
    "diagnosis": {"django"},
}


def _module(path: Path) -> str:
    if PACKAGE not in path.parents:
        return f"wire.{path.stem}"
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {_module(path): path for path in sorted(PACKAGE.rglob("*.py"))} | {
    _module(path): path for path in sorted(SOURCES.glob("*.pyx"))
}
INIT = "__init__"
INSIDE = [module for module in MODULES if module != INIT]

_parsed = cache(lambda path: ast.parse(path.read_text()))


def _room(module: str) -> str:
    """The room of a module."""
    first, _, inside = module.partition(".")
    if inside or first in ROOMS:
        return first
    if first not in OUTSIDE:
        pytest.fail(f"{module} is in no room: move it into a folder")
    return OUTSIDE[first]


@cache
def _imports(module: str) -> frozenset[str]:
    """The dotted names of what a module imports, anywhere in it."""
    return frozenset(_find_imports(module))


def _find_imports(module: str) -> Iterator[str]:
    path = MODULES[module]
    if path.suffix == ".pyx":
        text = path.read_text()
        for name in re.findall(r'^include "(.+)"', text, re.MULTILINE):
            text += (SOURCES / name).read_text()
        yield from re.findall(r"^(?:from|c?import) ([\w.]+)", text, re.MULTILINE)
        return
    for node in ast.walk(_parsed(path)):
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


def test_imports_stay_within_what_a_room_may_know() -> None:
    imports = {
        (module, _room(module), name) for module in INSIDE for name in _ours(module)
    }
    strange = {
        (module, name)
        for module, room, name in imports
        if _room(name) not in {room, *ROOMS[room]}
    }
    assert not strange


def test_rooms_know_no_strangers() -> None:
    known = {(m, name.partition(".")[0]) for m in INSIDE for name in _imports(m)}
    assert {
        (m, name) for m, name in known if name in STRANGERS.get(_room(m), ())
    } == set()


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


def test_every_module_is_in_its_room_on_the_page() -> None:
    _, tree, _ = (ROOT / "docs" / "architecture.md").read_text().split("```", 2)
    folder, shown = "", set()
    for line in tree.splitlines():
        if found := re.match(r"  (\w+)/", line):
            folder = f"{found[1]}."
        inner = re.match(r"      (\w+)/", line)
        inside = folder + (f"{inner[1]}." if inner else "")
        names = re.findall(r"(\w+)\.py\b|\b(_\w+)\b(?!\.)", line)
        shown |= {inside + (name or compiled) for name, compiled in names}
    ours = {m for m in INSIDE if not m.startswith(("demo.", "_version", "__main__"))}
    assert {m for m in ours if not m.endswith(INIT)} <= shown


def test_no_assert_in_what_is_shipped() -> None:
    """Under `python -O` it would not be there."""
    assert [path for path in MODULES.values() if _has_assert(path)] == []


def _has_assert(path: Path) -> bool:
    if path.suffix == ".pyx":
        return bool(re.search(r"^\s*assert\b", path.read_text(), re.MULTILINE))
    return any(isinstance(node, ast.Assert) for node in ast.walk(_parsed(path)))


@pytest.mark.parametrize("folder", ["src", "tests", "bench"])
def test_files_are_short(folder: str) -> None:
    patterns = ("*.py", "*.pyi", "*.pyx", "*.pxi")
    paths = [path for each in patterns for path in (ROOT / folder).rglob(each)]
    lengths = {path.name: len(path.read_text().splitlines()) for path in paths}
    assert lengths
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_every_compiled_module_has_its_stub_and_test() -> None:
    for path in SOURCES.glob("*.pyx"):
        assert (PACKAGE / "wire" / f"{path.stem}.pyi").is_file()
        assert (ROOT / "tests" / "unit" / f"test{path.stem}.py").is_file()
