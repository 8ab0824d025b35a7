"""The envelope of a message: a msgpack map whose last entry names its channels.

msgpack packs and unpacks the values; what is done here is the frame around
them: the header of the map and the entry `__asgi_channel__`, written and read
as the msgpack specification has it. The bytes are those that channels_redis
packs for `{**message, "__asgi_channel__": channels}`.
"""

import reprlib

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.list cimport PyList_CheckExact
from cpython.pyport cimport PY_SSIZE_T_MAX
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy

from msgpack import Packer, unpackb
from msgpack.exceptions import UnpackException

from channels_redis_fast.exceptions import InvalidMessage, UnreadableMessage

include "_msgpack.pxi"

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef str CHANNEL = "__asgi_channel__"
cdef bytes KEY = b"\xb0__asgi_channel__"  # the same, as msgpack packs it
cdef Py_ssize_t KEY_SIZE = 17
cdef const uint8_t* KEY_DATA = <const uint8_t*> PyBytes_AS_STRING(KEY)

# What msgpack raises for a value that it can't pack; anything else comes from
# Python code in the message and is not ours to judge.
cdef tuple UNPACKABLE = (TypeError, ValueError, OverflowError, RecursionError)
cdef tuple UNREADABLE = (*UNPACKABLE, UnpackException)

# The `pack` methods of idle Packers. A Packer has one buffer, so whoever packs
# takes one out for as long: packing can run Python code (`items()` of a dict
# subclass, finalizers) that packs again or lets another thread do so.
cdef list idle_packers = []
cdef Py_ssize_t IDLE_PACKERS = 8
cdef Py_ssize_t KEPT_BUFFER = 1 << 18  # a buffer never shrinks: those beyond go


def pack(message) -> bytes:
    """Return the message as msgpack, as `msgpack.packb(message)` has it.

    Raises InvalidMessage, naming what is wrong, for anything that is not a dict
    (or of a subclass), has a key `__asgi_channel__`, that msgpack refuses, or that
    no receiver could read: keys must be str or bytes, at any depth.
    """
    cdef object pack_one
    cdef bytes body
    if type(message) is not dict:
        message = plain_dict(message)
    if CHANNEL in <dict> message:
        raise InvalidMessage(f"a message can't have the key {CHANNEL!r}: {short(message)}")
    try:
        pack_one = idle_packers.pop()
    except IndexError:
        pack_one = Packer().pack
    try:
        body = pack_one(message)
    except UNPACKABLE as error:
        raise InvalidMessage(complaint(message, error)) from error
    if PyBytes_GET_SIZE(body) <= KEPT_BUFFER and len(idle_packers) < IDLE_PACKERS:
        idle_packers.append(pack_one)
    if not has_readable_keys(body):
        check_keys(message)
    return body


def check_keys(message) -> None:
    """Raise InvalidMessage for a key that msgpack packs, and refuses to unpack.

    It names the place. The message is one that was packed, so no part holds itself.
    """
    complaint = unreadable_key(message, "message")
    if complaint is not None:
        raise InvalidMessage(complaint)


cdef bint has_readable_keys(bytes body) noexcept:
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(body)
    cdef int64_t count
    cdef Py_ssize_t at = map_header(data, end, &count)
    return skip_strict(data, at, end, count, True) >= 0


cdef str unreadable_key(container, str place):
    """Say where the first key is that is no str or bytes; None if there is none."""
    is_map = isinstance(container, dict)
    place = place[-200:]  # what is nested deeply has a long one
    for key, value in container.items() if is_map else enumerate(container):
        if is_map and not isinstance(key, (str, bytes, memoryview)):
            return f"{place} has the key {short(key)}: keys must be str or bytes"
        if isinstance(value, (dict, list, tuple)):
            found = unreadable_key(value, f"{place}[{short(key)}]")
            if found is not None:
                return found
    return None


cdef object short(value):
    return reprlib.repr(value)


cdef object excerpt(bytes payload, Py_ssize_t start):
    return short(payload[start:start + 40])


cdef dict plain_dict(message):
    """A subclass means what its `items()` says, for msgpack as for channels_redis."""
    if not isinstance(message, dict):
        raise InvalidMessage(f"a message must be a dict, not {short(message)}")
    return dict(message.items())


cdef str complaint(dict message, error):
    """Name the first entry that can't be packed on its own."""
    for key, value in message.items():
        try:
            Packer().pack({key: value})
        except UNPACKABLE as cause:
            return f"message[{short(key)}] can't be packed, {cause}: {short(value)}"
    return f"the message can't be packed, {error}: {short(message)}"


# --- Writing. Sizes are counted first, so that there is one allocation.


cdef inline uint8_t* put(uint8_t* out, const void* data, Py_ssize_t size) noexcept nogil:
    memcpy(out, data, size)
    return out + size


cdef inline uint8_t* put_name(uint8_t* out, const char* name, Py_ssize_t size) noexcept nogil:
    return put(put_header(out, size, 0xa0, 0xda, True), name, size)


cdef inline Py_ssize_t countable(Py_ssize_t count) except -1:
    if count > MAX_COUNT:
        raise ValueError(f"{count} is more than msgpack counts")
    return count


cdef inline Py_ssize_t grown(Py_ssize_t size, Py_ssize_t more) except -1:
    if more > PY_SSIZE_T_MAX - size:  # with 64 bits, after 2**31 names of 4 GiB
        raise OverflowError("the channels are too many for one message")  # pragma: no cover
    return size + more


cdef inline Py_ssize_t name_size(Py_ssize_t size) except -1:
    return grown(header_size(countable(size), True), size)


cdef bytes start_splice(bytes head, bytes body, Py_ssize_t tail, uint8_t** out):
    """Return bytes with room for `tail` more, and in `out` where they go.

    What is in front is head, and body counting one entry more, and the key.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), old
    cdef int64_t count
    old = map_header(data, size, &count)
    if old < 0 or count == MAX_COUNT:
        raise ValueError(f"a body must be a msgpack map, not {excerpt(body, 0)}")
    tail = grown(tail, header_size(count + 1, False) + size - old + KEY_SIZE)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, grown(PyBytes_GET_SIZE(head), tail))
    out[0] = put(
        <uint8_t*> PyBytes_AS_STRING(result), PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head)
    )
    out[0] = put_header(out[0], count + 1, 0x80, 0xde, False)
    out[0] = put(out[0], data + old, size - old)
    out[0] = put(out[0], KEY_DATA, KEY_SIZE)
    return result


def splice(bytes head not None, bytes body not None, channel) -> bytes:
    """Return head, then the packed map `body` with one more entry, its channel.

    `channel` is a name as str, or as bytes of UTF-8. Raises ValueError for a
    body that does not begin as a msgpack map, TypeError for another channel.
    """
    cdef const char* name
    cdef Py_ssize_t size
    cdef uint8_t* out
    cdef bytes result
    if isinstance(channel, str):
        name = PyUnicode_AsUTF8AndSize(channel, &size)
    elif PyBytes_CheckExact(channel):
        name, size = PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel)
    else:
        raise TypeError(f"a channel must be str or bytes, not {short(channel)}")
    result = start_splice(head, body, name_size(size), &out)
    put_name(out, name, size)
    return result


def splice_list(bytes head not None, bytes body not None, list channels not None) -> bytes:
    """Return head, then the packed map `body` with one more entry, its channels.

    `channels` are names as bytes of UTF-8; any number of any length. Raises
    ValueError for a body that does not begin as a msgpack map, TypeError for
    other channels.
    """
    cdef Py_ssize_t tail
    cdef uint8_t* out
    cdef bytes result
    # The list is read twice, and must be the same both times.
    with cython.critical_section(channels):
        tail = header_size(countable(len(channels)), False)
        for channel in channels:
            if not PyBytes_CheckExact(channel):
                raise TypeError(f"a channel must be bytes, not {short(channel)}")
            tail = grown(tail, name_size(PyBytes_GET_SIZE(channel)))
        result = start_splice(head, body, tail, &out)
        out = put_header(out, len(channels), 0x90, 0xdc, False)
        for channel in channels:
            out = put_name(out, PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel))
    return result


# --- Reading. `data[:end]` is what came from Redis; nothing in it is trusted.


cdef str read_name(const uint8_t* data, Py_ssize_t* at, Py_ssize_t end):
    """Return the str at `at` and move it on; None when there is no whole str."""
    if at[0] >= end:
        return None
    cdef uint8_t code = data[at[0]]
    cdef int width = 0
    cdef int64_t size = code & 0x1f
    at[0] += 1
    if 0xd9 <= code <= 0xdb:
        width = 1 << (code - 0xd9)
        if width > end - at[0]:
            return None
        size = number(data + at[0], width)
    elif code & 0xe0 != 0xa0:
        return None
    at[0] += width
    if size > end - at[0]:
        return None
    at[0] += size
    return PyUnicode_DecodeUTF8(<const char*> data + at[0] - size, size, NULL)


cdef list read_channels(const uint8_t* data, Py_ssize_t at, Py_ssize_t end):
    """Return the names from `at` to `end`, one str or an array of them; None for else."""
    cdef int64_t count = 1
    cdef list names = []
    cdef int width
    if at < end and data[at] & 0xf0 == 0x90:
        count = data[at] & 0x0f
        at += 1
    elif at < end and (data[at] == 0xdc or data[at] == 0xdd):
        width = 2 << (data[at] - 0xdc)
        at += 1
        if width > end - at:
            return None
        count = number(data + at, width)
        at += width
    while count:
        name = read_name(data, &at, end)
        if name is None:
            return None
        names.append(name)
        count -= 1
    return names if at == end else None


cdef inline bint is_channel_key(const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    return end - at >= KEY_SIZE and memcmp(data + at, KEY_DATA, KEY_SIZE) == 0


cdef Py_ssize_t last_entry(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, int64_t count
) noexcept nogil:
    """Return where the last of the entries at `at` begins, -1 unless it ends at `end`.

    The value of the channel key, which may be long, is left to `read_channels`.
    """
    cdef Py_ssize_t last = at
    while count and at >= 0:
        last = at
        if count == 1 and is_channel_key(data, at, end):
            return last
        at = skip(data, skip(data, at, end), end)
        count -= 1
    return last if at == end else -1


cdef bytes without_last(const uint8_t* data, Py_ssize_t size, int64_t count):
    """The packed map whose entries are `data` and whose last, the `count`th, is cut off."""
    cdef bytes body = PyBytes_FromStringAndSize(NULL, header_size(count - 1, False) + size)
    cdef uint8_t* out = <uint8_t*> PyBytes_AS_STRING(body)
    put(put_header(out, count - 1, 0x80, 0xde, False), data, size)
    return body


cdef list checked_channels(value):
    """The same as `read_channels`, of a value that msgpack has read."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all([isinstance(name, str) for name in value]):
        return value
    return None


cdef bint is_flat(dict message) noexcept:
    cdef Py_ssize_t at = 0
    cdef PyObject* value
    while PyDict_Next(message, &at, NULL, &value):
        if PyDict_CheckExact(<object> value) or PyList_CheckExact(<object> value):
            return False
    return True


def unpack(
    bytes payload not None, Py_ssize_t start=0, Py_ssize_t limit=PY_SSIZE_T_MAX
) -> tuple:
    """Return `(channels, message, flat)` from the bytes of `payload` behind `start`.

    `channels` are the names in the entry `__asgi_channel__`, None without one;
    `message` is the rest. `flat` says that no value of it is a list or dict, so
    that `dict.copy()` makes a message of its own. Values are what
    `msgpack.unpackb` makes of them. Raises UnreadableMessage for all that is
    not one whole map with such an entry or none, whatever the bytes, and for a
    message (without that entry) of more than `limit` bytes.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(payload)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(payload), first, last, size
    cdef int64_t count
    cdef bytes body
    cdef list channels = None
    cdef dict message
    if start < 0 or start > end:
        raise UnreadableMessage(f"no message behind byte {start} of {excerpt(payload, 0)}")
    first = map_header(data + start, end - start, &count)
    if first < 0:
        raise UnreadableMessage(f"not a msgpack map: {excerpt(payload, start)}")
    first += start
    last = last_entry(data, first, end, count)
    if last < 0:
        raise UnreadableMessage(f"not one whole map: {excerpt(payload, start)}")
    cdef bint named = count > 0 and is_channel_key(data, last, end)
    size = header_size(count - 1, False) + last - first if named else end - start
    if size > limit:
        raise UnreadableMessage(f"a message of {size} bytes: {excerpt(payload, start)}")
    try:
        if named:
            channels = read_channels(data, last + KEY_SIZE, end)
            body = without_last(data + first, last - first, count)
        else:
            body = payload[start:] if start else payload
        message = unpackb(body)
    except UNREADABLE as error:
        raise UnreadableMessage(f"{error}: {excerpt(payload, start)}") from error
    if CHANNEL in message:  # twice, or not in the last place: others may write so
        found = checked_channels(message.pop(CHANNEL))
        if not named:
            channels, named = found, True
    if named and channels is None:
        raise UnreadableMessage(f"no channel names: {excerpt(payload, start)}")
    return channels, message, is_flat(message)
