# What the modules of framing share: they are compiled with it inside, because
# there is no `cimport` between modules. To coverage, lines outside of functions are
# lines of the including file, whence the marks.

import os  # traced elsewhere

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t

from channels_redis_fast.exceptions import UnreadableMessage  # traced elsewhere

cdef uint64_t MAX_CLOCK_SKEW = 60  # seconds, as cryptography.fernet has it

# Random bytes that a child shares with its parent are not unique: each object
# remembers how many forks there were when it drew its own.
cdef uint64_t forks = 0


def _count_fork() -> None:  # traced elsewhere
    """Have every object of this module draw its random bytes again."""
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):  # traced elsewhere
    os.register_at_fork(after_in_child=_count_fork)  # traced elsewhere


cdef bytes random_bytes(Py_ssize_t size):
    return os.urandom(size)


cdef inline uint8_t* view(bytes data):
    """The bytes of an object, to be written only while nobody else has seen it."""
    return <uint8_t*> PyBytes_AS_STRING(data)


cdef inline bytes new_bytes(Py_ssize_t size):
    return PyBytes_FromStringAndSize(NULL, size)


cdef inline void put_number(uint8_t* out, uint64_t value, int size) noexcept nogil:
    """Write the `size` low bytes of a number, big-endian."""
    cdef int i
    for i in range(size):
        out[size - 1 - i] = <uint8_t> (value >> (8 * i))


cdef inline uint64_t get_number(const uint8_t* data, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(size):
        value = value << 8 | data[i]
    return value


cdef int check_age(uint64_t made, ttl, uint64_t now) except -1:
    """Refuse what cryptography.fernet refuses: older than `ttl` s, or of the future."""
    if ttl is None:
        return 0
    if made + ttl < now:
        raise UnreadableMessage(f"a message of {now - made} s ago is older than {ttl} s")
    if made > now and made - now > MAX_CLOCK_SKEW:
        raise UnreadableMessage(f"a message is of {made - now} s in the future")
    return 0
