"""Validity of channel and group names, and the part of a name that picks its Redis key.

The rule is the Channels channel-layer specification's: at most 100 ASCII alphanumerics,
hyphens, underscores or periods; in channel names, one "!" may divide the part that all
processes share (the non-local part, "!" included) from the part that one process knows.
"""

from reprlib import Repr
import string

from cpython.unicode cimport (
    PyUnicode_1BYTE_DATA, PyUnicode_Check, PyUnicode_FindChar, PyUnicode_GET_LENGTH,
    PyUnicode_Substring,
)
from libc.string cimport memchr, memset

from channels_redis_fast.exceptions import InvalidName


cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)


# What Channels says, but one more: names of 100 bytes must do, the specification demands.
cdef enum:
    LENGTH_LIMIT = 101

cdef str INVALID_NAME = (
    "{} name must be a valid unicode string with length < 101 containing only ASCII"
    " alphanumerics, hyphens, underscores, or periods."
)

# Names come from users: an error shows what was wrong with them, not all of a megabyte.
_brief = Repr()
_brief.maxstring = _brief.maxother = 160

cdef unsigned char FORBIDDEN[256]  # by ASCII code: 0 for a character of a name, else 1
memset(FORBIDDEN, 1, sizeof(FORBIDDEN))
for _character in (string.ascii_letters + string.digits + "-_.").encode():
    FORBIDDEN[_character] = 0


cdef inline const unsigned char* _ascii(object name) noexcept:
    # The memory of a str that is ASCII and not too long, else NULL.
    if not PyUnicode_Check(name) or PyUnicode_GET_LENGTH(name) >= LENGTH_LIMIT:
        return NULL
    return <const unsigned char*> PyUnicode_1BYTE_DATA(name) if PyUnicode_IS_ASCII(name) else NULL


cdef inline bint _is_word(const unsigned char* text, Py_ssize_t size) noexcept:
    # No early exit: nearly every name is good, and a loop that only collects bits takes
    # half the time of one that also branches on each of them.
    cdef unsigned char seen = 0
    cdef Py_ssize_t i
    for i in range(size):
        seen |= FORBIDDEN[text[i]]
    return not seen


# The two functions that return a str don't declare it: Cython would refuse to return the
# instances of subclasses, and names that layers hand out are such.

cdef object _refusal(str kind, object name):
    return InvalidName(f"{INVALID_NAME.format(kind)}, not {_brief.repr(name)}")


def non_local_name(object name):
    """Check a channel name and return its part up to and including "!".

    A name without "!", or that ends with it, is returned as the object it is. Raises
    InvalidName, a TypeError, for anything but a str that the Channels channel-layer
    specification allows as a channel name. Unlike Channels' own check it refuses digits and
    letters beyond ASCII and a newline at the end.
    """
    cdef const unsigned char* text = _ascii(name)
    if text is NULL:
        raise _refusal("Channel", name)
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(name)
    cdef const unsigned char* mark = <const unsigned char*> memchr(text, c"!", size)
    cdef Py_ssize_t head = size if mark is NULL else mark - text
    if head == 0 or not _is_word(text, head):
        raise _refusal("Channel", name)
    if mark is NULL or head + 1 == size:
        return name
    if not _is_word(mark + 1, size - head - 1):
        raise _refusal("Channel", name)
    return PyUnicode_Substring(name, 0, head + 1)


def check_group(object name) -> None:
    """Check a group name.

    Raises InvalidName, a TypeError, for anything but a str that the Channels channel-layer
    specification allows as a group name; no "!", and otherwise as in channel names.
    """
    cdef const unsigned char* text = _ascii(name)
    if text is NULL or PyUnicode_GET_LENGTH(name) == 0:
        raise _refusal("Group", name)
    if not _is_word(text, PyUnicode_GET_LENGTH(name)):
        raise _refusal("Group", name)


def split_local(object name):
    """Return the part of a channel name up to and including "!" without checking the name.

    For names that came from elsewhere or that a subclass's own rules allow. A name without
    "!", or that ends with it, is returned as the object it is. Raises TypeError for anything
    but a str.
    """
    if not PyUnicode_Check(name):
        raise TypeError(f"channel name must be a str, not {_brief.repr(name)}")
    cdef Py_ssize_t size = PyUnicode_GET_LENGTH(name)
    cdef Py_ssize_t mark = PyUnicode_FindChar(name, c"!", 0, size, 1)
    if mark == -1 or mark + 1 == size:
        return name
    return PyUnicode_Substring(name, 0, mark + 1)
