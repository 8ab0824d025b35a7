"""The extension modules; everything else is declared in pyproject.toml."""

import glob
import os

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = (
    "_names",
    "_hashing",
    "_capacity",
    "_envelope",
    "_framing",
    "_aead",
    "_fanout",
)

INCLUDED = sorted(glob.glob("src/*.pxi"))

# Line tracing for coverage of the .pyx files; slow, never for a release.
TRACE = os.environ.get("CHANNELS_REDIS_FAST_TRACE") == "1"
TRACE_MACROS = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

extensions = [
    Extension(
        f"channels_redis_fast.wire.{name}",
        [f"src/{name}.pyx"],
        depends=[f"src/{name}.pyx", *INCLUDED],  # keeps them in the sdist
        define_macros=TRACE_MACROS if TRACE else [],
    )
    for name in MODULES
]

setup(
    ext_modules=cythonize(
        extensions,
        force=True,  # directives are not part of Cython's staleness test
        compiler_directives={
            "language_level": 3,
            # True by examination, and tests/test_threads.py. Tables are filled when a
            # module is imported and then only read. Counters, the memo of capacities
            # and the AES-GCM readers change inside critical sections. Idle packers
            # and ciphers are taken out of a list to be used, which is one step; that
            # a list may become longer than its limit by a few does no harm.
            "freethreading_compatible": True,
            "autotestdict": False,
            "linetrace": TRACE,
        },
    )
)
