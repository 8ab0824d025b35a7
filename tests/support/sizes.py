"""How long the package's files, classes and functions are: `make sizes` prints it."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "channels_redis_fast"
_SHOWN = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Sizes(NamedTuple):
    """Lines of files, lines and methods of classes, arguments of constructors."""

    files: dict[str, int]
    classes: dict[str, int]
    methods: dict[str, int]
    constructors: dict[str, int]
    functions: list[int]

    @property
    def median(self) -> float:
        """Of the lines of functions, with their docstrings."""
        return statistics.median(self.functions)

    @property
    def p90(self) -> float:
        """Nine of ten functions are no longer."""
        return sorted(self.functions)[len(self.functions) * 9 // 10]


def measure(package: Path = PACKAGE) -> Sizes:
    """The sizes of all that is written in Python, by file or `file: class`."""
    sizes = Sizes({}, {}, {}, {}, [])
    for path in sorted(package.rglob("*.py")):
        text, name = path.read_text(), path.relative_to(package).as_posix()
        sizes.files[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                sizes.functions.append(_lines(node))
            elif isinstance(node, ast.ClassDef):
                _add_class(sizes, f"{name}: {node.name}", node)
    return sizes


def _add_class(sizes: Sizes, name: str, node: ast.ClassDef) -> None:
    methods = [part for part in node.body if isinstance(part, Function)]
    sizes.classes[name] = _lines(node)
    sizes.methods[name] = len(methods)
    for method in methods:
        if method.name == "__init__":
            sizes.constructors[name] = _arguments(method)


def _arguments(constructor: Function) -> int:
    """How many it takes beside `self`."""
    arguments = constructor.args
    return len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1


def _lines(node: Function | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _report(sizes: Sizes) -> Iterator[str]:
    for title, found in (
        ("lines of files", sizes.files),
        ("lines of classes", sizes.classes),
        ("methods of classes", sizes.methods),
        ("arguments of constructors", sizes.constructors),
    ):
        yield f"most {title}:"
        largest = sorted(found.items(), key=lambda item: -item[1])
        yield from (f"  {number:>5}  {name}" for name, number in largest[:_SHOWN])
    count, total = len(sizes.files), sum(sizes.files.values())
    yield f"{len(sizes.functions)} functions: median {sizes.median:g}, p90 {sizes.p90}"
    yield f"{count} files: {total:,} lines, {total // count} each"


if __name__ == "__main__":
    print("\n".join(_report(measure())))
