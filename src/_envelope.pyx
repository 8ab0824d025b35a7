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
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy

from msgpack import Packer, unpackb
from msgpack.exceptions import UnpackException

from channels_redis_fast.exceptions import InvalidMessage, UnreadableMessage

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef str CHANNEL = "__asgi_channel__"
cdef bytes ENTRY = b"\xb0__asgi_channel__"  # the same, as msgpack packs it
cdef Py_ssize_t ENTRY_SIZE = 17
cdef const uint8_t* ENTRY_DATA = <const uint8_t*> PyBytes_AS_STRING(ENTRY)

cdef int64_t MAX_COUNT = 0xFFFFFFFF  # of what a msgpack header can count
cdef Py_ssize_t HUGE = (<size_t> -1) >> 1

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
    (or of a subclass), has a key `__asgi_channel__`, or that msgpack refuses.
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
    return body


cdef object short(value):
    return reprlib.repr(value)


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


cdef inline int header_size(int64_t count, bint text) noexcept nogil:
    """The size of the header that `put_header` writes, first byte included."""
    if text:
        return 1 if count < 32 else 2 if count < 256 else 3 if count < 65536 else 5
    return 1 if count < 16 else 3 if count < 65536 else 5


cdef uint8_t* put_header(
    uint8_t* out, int64_t count, uint8_t fix, uint8_t code16, bint text
) noexcept nogil:
    """Write the header of a str, an array or a map, the smallest that can count it.

    `fix` is its first byte with a count of 0 inside, `code16` the one in front
    of a 16-bit count; the one for 32 bits follows it and, for a str only, the
    one for 8 bits precedes it.
    """
    cdef int size = header_size(count, text), shift
    if size == 1:
        out[0] = <uint8_t> (fix | count)
        return out + 1
    out[0] = code16 + (1 if size == 5 else 0) - (1 if size == 2 else 0)
    for shift in range(1, size):
        out[shift] = <uint8_t> (count >> (8 * (size - 1 - shift)))
    return out + size


cdef inline uint8_t* put(uint8_t* out, const void* data, Py_ssize_t size) noexcept nogil:
    memcpy(out, data, size)
    return out + size


cdef inline uint8_t* put_name(uint8_t* out, const char* name, Py_ssize_t size) noexcept nogil:
    return put(put_header(out, size, 0xa0, 0xda, True), name, size)


cdef inline Py_ssize_t name_size(Py_ssize_t size) except -1:
    if size > MAX_COUNT:
        raise ValueError(f"a name of {size} bytes is too long for msgpack")
    return header_size(size, True) + size


cdef bytes start_splice(bytes head, bytes body, Py_ssize_t tail, uint8_t** out):
    """Return bytes with room for `tail` more, and in `out` where they go.

    What is in front is head, and body counting one entry more, and the key.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), old
    cdef int64_t count
    old = map_header(data, size, &count)
    if old < 0 or count == MAX_COUNT:
        raise ValueError(f"a body must be a msgpack map, not {short(body)}")
    cdef Py_ssize_t front = PyBytes_GET_SIZE(head) + header_size(count + 1, False)
    front += size - old + ENTRY_SIZE
    if tail > HUGE - front:
        raise OverflowError("the channels are too many for one message")
    cdef bytes result = PyBytes_FromStringAndSize(NULL, front + tail)
    out[0] = put(
        <uint8_t*> PyBytes_AS_STRING(result), PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head)
    )
    out[0] = put_header(out[0], count + 1, 0x80, 0xde, False)
    out[0] = put(out[0], data + old, size - old)
    out[0] = put(out[0], ENTRY_DATA, ENTRY_SIZE)
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
    cdef Py_ssize_t tail, size
    cdef uint8_t* out
    cdef bytes result
    # The list is read twice, and must be the same both times.
    with cython.critical_section(channels):
        tail = header_size(len(channels), False)
        if len(channels) > MAX_COUNT:
            raise OverflowError(f"{len(channels)} channels are too many for one message")
        for channel in channels:
            if not PyBytes_CheckExact(channel):
                raise TypeError(f"a channel must be bytes, not {short(channel)}")
            size = name_size(PyBytes_GET_SIZE(channel))
            if size > HUGE - tail:
                raise OverflowError("the channels are too many for one message")
            tail += size
        result = start_splice(head, body, tail, &out)
        out = put_header(out, len(channels), 0x90, 0xdc, False)
        for channel in channels:
            out = put_name(out, PyBytes_AS_STRING(channel), PyBytes_GET_SIZE(channel))
    return result


# --- Reading. `data[:end]` is what came from Redis; nothing in it is trusted.


cdef inline int64_t number(const uint8_t* data, int size) noexcept nogil:
    """A big-endian number of 1, 2 or 4 bytes."""
    cdef int64_t value = 0
    cdef int i
    for i in range(size):
        value = value << 8 | data[i]
    return value


cdef Py_ssize_t map_header(const uint8_t* data, Py_ssize_t end, int64_t* count) noexcept nogil:
    """Return the size of the header of a map and set its count, or return -1."""
    if end >= 1 and data[0] & 0xf0 == 0x80:
        count[0] = data[0] & 0x0f
        return 1
    if end >= 3 and data[0] == 0xde:
        count[0] = number(data + 1, 2)
        return 3
    if end >= 5 and data[0] == 0xdf:
        count[0] = number(data + 1, 4)
        return 5
    return -1


cdef Py_ssize_t skip(const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """Return where the value that begins at `at` ends, or -1 when it isn't whole.

    A container may count no more values than bytes follow. So msgpack, which
    allocates what an array counts before it reads on, allocates no more than a
    small multiple of what was received.
    """
    cdef int64_t pending = 1, size, values
    cdef int width
    cdef uint8_t code
    while pending:
        if pending > end - at:
            return -1
        pending -= 1
        code = data[at]
        at += 1
        width, size, values = 0, 0, 0
        if code < 0x80 or code >= 0xe0:  # small int
            continue
        if code < 0xa0:  # small map or array
            values = (code & 0x0f) << (code < 0x90)
        elif code < 0xc0:  # short str
            size = code & 0x1f
        elif code == 0xc1:  # in no version of the format
            return -1
        elif code < 0xc4:  # nil, false, true
            continue
        elif code < 0xca:  # bin and ext of a size in 8, 16 or 32 bits
            width = 1 << ((code - 0xc4) % 3)
            size = code >= 0xc7
        elif code < 0xcc:  # float
            size = 4 << (code & 1)
        elif code < 0xd4:  # int of 1, 2, 4 or 8 bytes
            size = 1 << (code & 3)
        elif code < 0xd9:  # ext of 1, 2, 4, 8 or 16 bytes, and their type
            size = 1 + (1 << (code - 0xd4))
        elif code < 0xdc:  # str of a size in 8, 16 or 32 bits
            width = 1 << (code - 0xd9)
        else:  # array and map of a count in 16 or 32 bits
            width = 2 << (code & 1)
        if width > end - at:
            return -1
        if code >= 0xdc:
            values = number(data + at, width) << (code >= 0xde)
        elif width:
            size += number(data + at, width)
        at += width
        if size > end - at:
            return -1
        at += size
        pending += values
    return at


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


cdef list read_channels(const uint8_t* data, Py_ssize_t end):
    """Return the names that `data` is, one str or an array of them; None for else."""
    cdef Py_ssize_t at = 1
    cdef int64_t count
    cdef list names = []
    cdef int width
    if end == 0:
        return None
    if data[0] == 0xdc or data[0] == 0xdd:
        width = 2 << (data[0] - 0xdc)
        if width > end - at:
            return None
        count = number(data + at, width)
        at += width
    elif data[0] & 0xf0 == 0x90:
        count = data[0] & 0x0f
    else:
        count, at = 1, 0
    while count:
        name = read_name(data, &at, end)
        if name is None:
            return None
        names.append(name)
        count -= 1
    return names if at == end else None


cdef inline bint is_entry(const uint8_t* data) noexcept nogil:
    return memcmp(data, ENTRY_DATA, ENTRY_SIZE) == 0


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


cdef bint is_flat(dict message):
    for value in message.values():
        if type(value) is dict or type(value) is list:
            return False
    return True


def unpack(bytes payload not None, Py_ssize_t start=0) -> tuple:
    """Return `(channels, message, flat)` from the bytes of `payload` behind `start`.

    `channels` are the names in the entry `__asgi_channel__`, None without one;
    `message` is the rest. `flat` says that no value of it is a list or dict, so
    that `dict.copy()` makes a message of its own. Values are what
    `msgpack.unpackb` makes of them. Raises UnreadableMessage for all that is
    not one whole map with such an entry or none, whatever the bytes.
    """
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(payload)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(payload), at, entries, key
    cdef int64_t count, left
    cdef list channels = None
    cdef dict message
    cdef bytes body = None
    if start < 0 or start > end:
        raise UnreadableMessage(f"no message behind byte {start} of {short(payload)}")
    at = map_header(data + start, end - start, &count)
    if at < 0:
        raise UnreadableMessage(f"not a msgpack map: {short(payload[start:])}")
    try:
        at = entries = start + at
        for left in range(count, 0, -1):
            key, at = at, skip(data, at, end)
            if left == 1 and at - key == ENTRY_SIZE and is_entry(data + key):
                channels = read_channels(data + at, end - at)
                if channels is None:
                    raise UnreadableMessage(f"no channel names: {short(payload[at:])}")
                body = without_last(data + entries, key - entries, count)
                at = end
            elif at >= 0:
                at = skip(data, at, end)
            if at < 0:
                break
        if at != end:
            raise UnreadableMessage(f"not one whole map: {short(payload[start:])}")
        if body is None:
            body = payload[start:] if start else payload
        message = unpackb(body)
    except UNREADABLE as error:
        if type(error) is UnreadableMessage:
            raise
        raise UnreadableMessage(f"{error}: {short(payload[start:])}") from error
    if CHANNEL in message:  # twice, or not in the last place: others may write so
        found = checked_channels(message.pop(CHANNEL))
        if channels is None:
            channels = found
        if channels is None:
            raise UnreadableMessage(f"no channel names: {short(payload[start:])}")
    return channels, message, is_flat(message)
