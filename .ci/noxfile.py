"""The matrix: the wheel, built from the sdist, tested in environments of its own.

`make matrix` runs every cell, `make test-wheel` the first. Each cell but the first
differs from it in several ways at once, so that every value of every axis is met, most
of them in more than one company; a full product would take days.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "matrix"

nox.options.envdir = str(ROOT / ".venv-matrix")
# A Python that is not there is skipped by its name, and none is fetched.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
nox.needs_version = ">=2025.10.14"

# pyenv's commands on PATH answer only for versions that were switched on.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
FOLDERS = sorted(map(str, PYENV.glob("versions/3.*/bin")))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *FOLDERS])

# What the tests need of the checkout: all but the package and what builds it.
COPIED = ("tests", "bench", "src", "docs", "README.md", "pyproject.toml")

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

# Of the sources, which `make test` looks at: all but what compares a cell with its run.
PROJECT = (ROOT / "tests" / "project").glob("test_*.py")
OF_THE_CHECKOUT = sorted({path.stem for path in PROJECT} - {"test_environment"})

# What may depend on an axis; two to three minutes.
FEW = (
    "environment",
    "aead",
    "bad_input",
    "broadcast",
    "capacity",
    "cluster",
    "connecting",
    "connection",
    "consumers",
    "consumers_generic",
    "consumers_layers",
    "core",
    "fanout",
    "framing",
    "group_exclude",
    "hashing",
    "history",
    "listen",
    "liveness",
    "restore",
    "loops",
    "names",
    "pubsub",
    "pubsub_faults",
    "pubsub_loops",
    "sentinel",
    "stats",
    "sync",
    "threads",
    "topologies",
)


@dataclass(frozen=True)
class Cell:
    """One combination. Packages are requirements, none means the newest."""

    python: str
    packages: tuple[str, ...] = ()
    server: str = "valkey"
    loop: str = "asyncio"
    optimize: bool = False
    debug: bool = False
    whole: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """What test_environment.py compares the run with, and Python obeys."""
        found = {
            "TEST_WHEEL": "1",
            "TEST_SERVER": self.server,
            "TEST_LOOP": self.loop,
            "TEST_PACKAGES": " ".join(self.packages),
        }
        if self.optimize:
            found["PYTHONOPTIMIZE"] = "1"
        if self.debug:
            found |= {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "error"}
        return found

    @property
    def options(self) -> list[str]:
        """Those of pytest."""
        found = []
        if self.optimize:  # conftest.py says of which helpers they are executed
            ignored = "ignore:assertions not in test modules:pytest.PytestConfigWarning"
            found += ["-W", ignored]
        if self.debug:
            found += ["-o", "asyncio_debug=true"]
        if self.whole:
            return found + [
                f"--ignore=tests/project/{name}.py" for name in OF_THE_CHECKOUT
            ]
        return found + [
            str(path.relative_to(ROOT)) for path in TESTS if path.stem[5:] in FEW
        ]


REDIS5, REDIS5_LAST = "redis==5.0.1", "redis==5.3.*"
REDIS6, REDIS6_LAST = "redis==6.0.0", "redis==6.4.*"
REDIS7, REDIS7_LAST = "redis==7.0.0", "redis==7.4.*"
REDIS8, REDIS8_LAST = "redis==8.0.0", "redis==8.1.*"
DJANGO4, DJANGO5, DJANGO6 = "Django==4.2.*", "Django==5.2.*", "Django==6.*"
CHANNELS = "channels==4.2.0"
# And the last channels_redis that takes them, which our extra `test` doesn't.
OLD_CHANNELS = (CHANNELS, "channels_redis==4.2.1")

CELLS = {
    "newest": Cell(f"3.{sys.version_info.minor}", whole=True),
    "oldest": Cell("3.10", (REDIS5, *OLD_CHANNELS, DJANGO4), server="redis62"),
    "redis-py 5": Cell("3.12", (REDIS5_LAST, DJANGO5), server="redis70", loop="uvloop"),
    "redis-py 6": Cell("3.13", (REDIS6, DJANGO5, *OLD_CHANNELS), server="redis70"),
    "redis-py 6 last": Cell("3.10", (REDIS6_LAST, DJANGO5), loop="uvloop"),
    "redis-py 7": Cell("3.12", (REDIS7, DJANGO6), server="redis62"),
    "redis-py 7 last": Cell("3.11", (REDIS7_LAST, DJANGO4), loop="uvloop"),
    "redis-py 8": Cell("3.13", (REDIS8, DJANGO6), server="redis62", loop="uvloop"),
    "optimized": Cell("3.13", (REDIS8_LAST, DJANGO6), optimize=True),
    "debug": Cell("3.12", (DJANGO6,), server="redis70", debug=True),
    "debug uvloop": Cell("3.11", loop="uvloop", debug=True, optimize=True),
    "3.14": Cell("3.14"),
    "3.14 free-threaded": Cell("3.14t"),
}


BUILT: dict[str, Path] = {}


def wheel(session: nox.Session) -> Path:
    """The wheel for the session's Python, built from the sdist; both are built once."""
    if "sdist" not in BUILT:
        shutil.rmtree(WORK, ignore_errors=True)
        build = (sys.executable, "-m", "build", "--sdist", "--outdir", str(WORK))
        session.run(*build, str(ROOT), external=True, silent=True)
        (BUILT["sdist"],) = WORK.glob("*.tar.gz")
    python = str(session.python)
    if python not in BUILT:
        folder = WORK / python
        sdist = str(BUILT["sdist"])
        session.run("pip", "wheel", "-q", "--no-deps", "-w", str(folder), sdist)
        (BUILT[python],) = folder.glob("*.whl")
    return BUILT[python]


def install(session: nox.Session, cell: Cell) -> None:
    """Installs the wheel, the cell's packages, and what the tests need."""
    ours = str(wheel(session))
    pins = [pin for pin in cell.packages if pin not in OLD_CHANNELS]
    session.install(f"{ours}[test]", *pins)
    if CHANNELS in cell.packages:
        session.install("--no-deps", *OLD_CHANNELS)


@nox.session
@nox.parametrize(
    ["python", "cell"],
    [nox.param(cell.python, cell, id=name) for name, cell in CELLS.items()],
)
def matrix(session: nox.Session, cell: Cell) -> None:
    """Tests the wheel in one combination."""
    install(session, cell)
    folder = Path(session.create_tmp()) / "copied"
    shutil.rmtree(folder, ignore_errors=True)
    for name in COPIED:
        copy(ROOT / name, folder / name)
    session.chdir(folder)
    # As `make test` does. 5: no test, where none failed or the arguments name none.
    for some, codes in (
        (("-n", "6", "--dist", "worksteal", "-m", "not serial"), [0, 1, 5]),
        (
            ("--last-failed", "--last-failed-no-failures=none", "-m", "not serial"),
            [0, 5],
        ),
        (("-m", "serial"), [0, 5]),
    ):
        session.run(
            *("pytest", "-q", "-rs", *some, *cell.options, *session.posargs),
            env=cell.environment,
            success_codes=codes,
        )


def copy(source: Path, target: Path) -> None:
    """Copies a file, or a folder without what was made from it."""
    if source.is_dir():
        made = shutil.ignore_patterns("__pycache__", "*.c")
        shutil.copytree(source, target, ignore=made)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
