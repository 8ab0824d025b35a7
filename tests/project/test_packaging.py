"""What is built holds what it should, and works where nothing else of ours is."""

from __future__ import annotations

import ast
import email
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from support.paths import ROOT
from support.servers import Server

NAME = "channels_redis_fast"
LEAVE_OUT = (".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "*.c")

# Building compiles everything, which takes its time.
# Serial: what is built once would be built in each process.
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow, pytest.mark.serial]


def _modules() -> set[str]:
    """MODULES of setup.py, which can't be imported without building."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES":
            return set(ast.literal_eval(node.value))
    pytest.fail("setup.py has no MODULES")


def _run(*command: str | Path, cwd: Path, **options: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-5_000:]
    return str(done.stdout)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was made from the sdist."""
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*LEAVE_OUT))
    _run(sys.executable, "-m", "build", "--outdir", folder, checkout, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def in_wheel(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def in_sdist(built: Path) -> set[str]:
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        files = [member.name for member in archive.getmembers() if member.isfile()]
    return {name.partition("/")[2] for name in files}


@pytest.fixture(scope="session")
def metadata(wheel: Path, in_wheel: set[str]) -> Message:
    (name,) = (name for name in in_wheel if name.endswith("METADATA"))
    with ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(name))


def _packaged() -> Iterator[str]:
    """The files of the package in the checkout, but for the compiled ones."""
    for path in (ROOT / NAME).rglob("*"):
        if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix()


def test_the_wheel_holds_the_package_and_nothing_else(in_wheel: set[str]) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = {f"{NAME}/wire/{module}{suffix}" for module in _modules()}
    ours = {name for name in in_wheel if ".dist-info/" not in name}
    assert ours == {*_packaged(), *compiled}


def test_the_wheel_holds_what_is_not_python(in_wheel: set[str]) -> None:
    assert {f"{NAME}/wire/{module}.pyi" for module in _modules()} <= in_wheel
    assert f"{NAME}/py.typed" in in_wheel
    for kind in "templates", "static":
        assert any(f"{NAME}/demo/{kind}/" in name for name in in_wheel)
    assert any(name.endswith("licenses/LICENSE") for name in in_wheel)
    assert [name for name in in_wheel if name.endswith((".pyx", ".pxi", ".c"))] == []


def test_every_module_is_built() -> None:
    assert _modules() == {path.stem for path in (ROOT / "src").glob("*.pyx")}


def test_the_sdist_holds_the_sources(in_sdist: set[str]) -> None:
    sources = [path for path in (ROOT / "src").iterdir() if path.suffix != ".c"]
    assert {f"src/{path.name}" for path in sources} <= in_sdist
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= in_sdist
    assert set(_packaged()) <= in_sdist
    assert [name for name in in_sdist if name.endswith(".so")] == []


def test_a_wheel_for_each_python() -> None:
    """Of those that pyproject.toml names, and tests that are there."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    versions = re.findall(
        r"Python :: (\d\.\d+)", str(project["project"]["classifiers"])
    )
    wheels = project["tool"]["cibuildwheel"]
    built = {each.removesuffix("-*") for each in wheels["build"]}
    assert built == {f"cp{v.replace('.', '')}" for v in versions} | {"cp314t"}
    commands = [each["test-command"] for each in (wheels, *wheels["overrides"])]
    for path in re.findall(r"{project}/(\S+)", " ".join(commands)):
        assert (ROOT / path).is_file()


def test_metadata(metadata: Message) -> None:
    version = (ROOT / NAME / "_version.py").read_text()
    assert f'"{metadata["Version"]}"' in version
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    extras = {"bench", "coverage", "cryptography", "demo", "docs", "fuzz"}
    extras |= {"health", "lint", "matrix", "prometheus", "test"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    needed = [n for n in metadata.get_all("Requires-Dist", []) if "extra" not in n]
    assert not any(n.startswith(("cryptography", "Django")) for n in needed)


@pytest.fixture(scope="session")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, and this one's other packages."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    _run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    # As a plain folder of modules: an editable install in it is not followed.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


WORK = """
import asyncio, sys
from pathlib import Path
import channels_redis_fast
from channels_redis_fast.core import RedisChannelLayer
assert Path(sys.prefix) in Path(channels_redis_fast.__file__).parents
layer = RedisChannelLayer(hosts=sys.argv[1:], symmetric_encryption_keys=["secret"])
async def main():
    name = await layer.new_channel()
    await layer.group_add("room", name)
    await layer.group_send("room", {"type": "t", "n": 1})
    print(await layer.receive(name))
asyncio.run(main())
"""


def test_the_wheel_works(fresh: Path, valkey: Server) -> None:
    output = _run(fresh, "-W", "error", "-c", WORK, valkey.url, cwd=fresh.parent)
    assert output == "{'type': 't', 'n': 1}\n"


def test_the_wheel_s_command_line(fresh: Path) -> None:
    output = _run(fresh, "-m", NAME, "--version", cwd=fresh.parent)
    assert output.startswith(f"{NAME} ")


@pytest.mark.parametrize("missing", ["all", *sorted(_modules())])
def test_without_compiled_modules(tmp_path: Path, missing: str) -> None:
    pattern = "*.so" if missing == "all" else f"{missing}.*.so"
    leave_out = shutil.ignore_patterns(pattern, "__pycache__")
    shutil.copytree(ROOT / NAME, tmp_path / NAME, ignore=leave_out)
    # Without `site`, or an editable install would find what is missing.
    paths = [str(tmp_path), sysconfig.get_path("purelib")]
    code = f"import sys; sys.path += {paths!r}; import {NAME}.core"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: channels_redis_fast has no compiled modules")
    assert "pip install" in last
    assert "another exception" not in done.stderr  # one error, not a chain


def test_a_missing_dependency_is_named(tmp_path: Path) -> None:
    """And not taken for a missing compiled module."""
    code = f"import sys; sys.modules['msgpack'] = None; import {NAME}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "msgpack" in done.stderr.splitlines()[-1]
    assert "compiled" not in done.stderr.splitlines()[-1]
