"""Which of several Redis hosts a name belongs to.

Every process of a fleet, whatever its version, has to agree on this. The rule is
channels_redis's: the low 12 bits of the name's CRC-32, divided by 4096 / ring_size, floored.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check
from libc.stdint cimport uint32_t

import cython


# SLICES[k][b] is the CRC of byte b followed by k zero bytes: with eight of them eight bytes
# are taken at once, since a CRC is linear. One at a time misses the time we have for it.
cdef uint32_t SLICES[8][256]


cdef void _fill_slices() noexcept:
    cdef uint32_t crc
    cdef int byte, _bit, k
    for byte in range(256):
        crc = byte
        for _bit in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)  # the polynomial of zlib and PNG
        SLICES[0][byte] = crc
    for k in range(1, 8):
        for byte in range(256):
            crc = SLICES[k - 1][byte]
            SLICES[k][byte] = (crc >> 8) ^ SLICES[0][crc & 0xFF]


_fill_slices()


cdef uint32_t _crc32(const unsigned char* data, Py_ssize_t size) noexcept:
    cdef uint32_t crc = 0xFFFFFFFF
    while size >= 8:
        crc = (
            SLICES[7][data[0] ^ (crc & 0xFF)]
            ^ SLICES[6][data[1] ^ ((crc >> 8) & 0xFF)]
            ^ SLICES[5][data[2] ^ ((crc >> 16) & 0xFF)]
            ^ SLICES[4][data[3] ^ (crc >> 24)]
            ^ SLICES[3][data[4]]
            ^ SLICES[2][data[5]]
            ^ SLICES[1][data[6]]
            ^ SLICES[0][data[7]]
        )
        data += 8
        size -= 8
    while size > 0:
        crc = (crc >> 8) ^ SLICES[0][data[0] ^ (crc & 0xFF)]
        data += 1
        size -= 1
    return ~crc


@cython.cdivision(True)  # ring_size is at least 2 where it divides
def shard_of(object name, Py_ssize_t ring_size) -> int:
    """Return the index, from 0 to ring_size - 1, of the shard that name belongs to.

    name is a str (hashed as UTF-8) or bytes; ring_size is the number of shards. The result
    is channels_redis's consistent hash bit for bit. Raises TypeError for other types and
    ValueError for a ring_size below 1 or a str that has no UTF-8.
    """
    cdef const char* data
    cdef Py_ssize_t size = 0
    if PyUnicode_Check(name):
        data = PyUnicode_AsUTF8AndSize(name, &size)
    elif PyBytes_Check(name):
        data = PyBytes_AS_STRING(name)
        size = PyBytes_GET_SIZE(name)
    else:
        raise TypeError(f"name must be a str or bytes, not {name!r}")
    if ring_size < 1:
        raise ValueError(f"ring_size must be at least 1, not {ring_size!r}")
    if ring_size == 1:
        return 0
    # Doubles, rounded twice, as in the incumbent: integers would give another shard for a few
    # hashes in rings of some sizes (186 is the first).
    cdef double width = 4096.0 / <double> ring_size
    return <Py_ssize_t> (<double> (_crc32(<const unsigned char*> data, size) & 0xFFF) / width)
