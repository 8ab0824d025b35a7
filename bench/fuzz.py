"""A coverage-guided search for bytes that a check in support/fuzzing.py fails.

`fuzz.py CHECK FOLDER [option of libFuzzer ...]`, in the environment that `make fuzz`
builds: compiled modules with libFuzzer's counters, AddressSanitizer and
UndefinedBehaviorSanitizer. What was tried and reached new code stays in FOLDER/CHECK
for the next run; what failed is written to FOLDER/CHECK-...
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import atheris

TESTS = Path(__file__).parents[1] / "tests"
LIBRARY = Path(atheris.path(), "asan_with_fuzzer.so")
SETTINGS = {
    "PYTHONPATH": str(TESTS),
    # The sanitizers have to be there before the first library is loaded.
    "LD_PRELOAD": str(LIBRARY),
    # Each object a block of its own, or overruns within Python's arenas go unseen.
    "PYTHONMALLOC": "malloc",
    # At its end Python leaves so much behind that leaks are looked for elsewhere, in
    # tests/unit/test_memory.py.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def prepare() -> None:
    """Start again with the sanitizers loaded; refuse to run without them."""
    package = find_spec("channels_redis_fast")
    if package is None or not package.origin:
        sys.exit("channels_redis_fast is not installed here: make fuzz does that")
    modules = [*Path(package.origin).parent.glob("wire/_*.so")]
    if not modules or b"__asan_init" not in modules[0].read_bytes():
        sys.exit("the compiled modules have no AddressSanitizer: make fuzz builds them")
    if os.environ.get("LD_PRELOAD") != str(LIBRARY):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | SETTINGS)


def quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def main(name: str, folder: str, *options: str) -> None:
    prepare()
    from support.fuzzing import CHECKS, WORDS, seeds

    corpus = Path(folder, name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = Path(folder, f"{name}.words")
    words.write_text("".join(map(quoted, WORDS)))
    files = [str(corpus), f"-dict={words}", f"-artifact_prefix={folder}/{name}-"]
    report = ["-print_final_stats=1", "-use_value_profile=1", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *files, *report, *options], CHECKS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
