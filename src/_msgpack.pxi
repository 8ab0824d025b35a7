# The msgpack format (https://github.com/msgpack/msgpack/blob/master/spec.md), as far
# as the frame of a message needs it: headers, and how long a value is.

from libc.stdint cimport int64_t, uint8_t

cdef int64_t MAX_COUNT = 0xFFFFFFFF  # of what a header can count


cdef inline int header_size(int64_t count, bint text) noexcept nogil:
    """The size of the header that `put_header` writes, first byte included."""
    if text:
        return 1 if count < 32 else 2 if count < 256 else 3 if count < 65536 else 5
    return 1 if count < 16 else 3 if count < 65536 else 5


cdef uint8_t* put_header(
    uint8_t* out, int64_t count, uint8_t fix, uint8_t code16, bint text
) noexcept nogil:
    """Write the header of a str, an array or a map, the smallest that can hold it.

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

    The same when `at` is -1 already, so that calls can be nested.

    A container may count no more values than bytes follow. So msgpack, which
    allocates what an array counts before it reads on, allocates no more than a
    small multiple of what was received.
    """
    cdef int64_t pending = 1, size, values
    cdef int width
    cdef uint8_t code
    if at < 0:
        return -1
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


# How long the values are whose first byte says it all; 0: those that it says no more of.
cdef uint8_t[256] SIZES


cdef void fill_sizes() noexcept:
    cdef int code
    for code in range(256):
        SIZES[code] = 1 if code < 0x80 or code >= 0xe0 or code in (0xc0, 0xc2, 0xc3) else 0
    for code in range(0x20):
        SIZES[0xa0 + code] = 1 + code  # short str
    for code in range(4):
        SIZES[0xcc + code] = SIZES[0xd0 + code] = 1 + (1 << code)  # int
    SIZES[0xca], SIZES[0xcb] = 5, 9  # float


fill_sizes()


cdef Py_ssize_t skip_strict(
    const uint8_t* data, Py_ssize_t at, Py_ssize_t end, int64_t count, bint keyed
) noexcept nogil:
    """Return where `count` values end, or -1 when a key in them is no str or bin.

    With `keyed`, each has a key in front of it. They are whole: msgpack packed them
    just now, and nests no deeper than 511 calls. Each message that is sent comes here,
    so most values cost no more than a look into a table.
    """
    cdef int width
    cdef int64_t inner
    cdef uint8_t code
    while count:
        count -= 1
        code = data[at]
        if keyed:
            if code & 0xe0 == 0xa0:  # short str
                at += 1 + (code & 0x1f)
            elif 0xd9 <= code <= 0xdb or 0xc4 <= code <= 0xc6:  # longer str, bin
                at = skip(data, at, end)
            else:
                return -1
            code = data[at]
        if SIZES[code]:
            at += SIZES[code]
            continue
        if code == 0xd9:  # str of up to 255 bytes
            at += 2 + data[at + 1]
            continue
        if code & 0xe0 == 0x80:  # small map or array
            at = skip_strict(data, at + 1, end, code & 0x0f, code < 0x90)
        elif 0xdc <= code < 0xe0:  # array and map of a count in 16 or 32 bits
            width = 2 << (code & 1)
            inner = number(data + at + 1, width)
            at = skip_strict(data, at + 1 + width, end, inner, code >= 0xde)
        else:
            at = skip(data, at, end)
        if at < 0:
            return -1
    return at
