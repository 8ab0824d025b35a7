"""Group members, as Redis returns them, gathered by the process that has to hear of them."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset


# A key met before: where it lies in memory, and the names collected under it.
cdef struct Entry:
    const char* key
    Py_ssize_t size
    PyObject* names

cdef enum:
    ENTRIES = 1024
    BUCKETS = 2048
    FEW = 256  # members, and then buckets: to clear more takes longer than it saves
    # Members, and then no table: its pages of the stack are new to a thread that was begun
    # for one call, and cost more than some slices.
    VERY_FEW = 8


cdef inline uint32_t _hash(const char* key, Py_ssize_t size) noexcept:
    # The four bytes before the "!" are random in names that layers make. Any hash is right,
    # so what other names and other byte orders come to only matters for speed.
    cdef uint32_t tail = 0
    if size > 4:
        memcpy(&tail, key + size - 5, 4)
    return (tail * <uint32_t> 2654435761) >> 21


cdef list _names_of(dict bundles, bytes key):
    names = bundles.get(key)
    if names is None:
        names = bundles[key] = []
    return names


cdef inline Py_ssize_t _key_size(object member) except -1:
    # The length of the non-local part.
    if not PyBytes_Check(member):
        raise TypeError(f"group member must be bytes, not {member!r}")
    cdef const char* data = PyBytes_AS_STRING(member)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(member)
    mark = <const char*> memchr(data, c"!", size)
    return size if mark is NULL else mark - data + 1


def bundle(list members not None) -> dict:
    """Return {non-local part: [member, ...]} for the members (bytes) of a group.

    The non-local part is the bytes up to and including the first b"!", or the whole member
    (Channels channel-layer specification). Keys are in the order of their first member,
    members in the order given. Raises TypeError for a member that is not bytes. Nothing else
    is checked: names that would be refused as input pass, an empty one is skipped.
    """
    return _bundle_few(members) if len(members) <= VERY_FEW else _bundle_many(members)


cdef dict _bundle_few(list members):
    cdef dict bundles = {}
    cdef Py_ssize_t size
    for member in members:
        size = _key_size(member)
        if size:
            (<list> _names_of(bundles, PyBytes_AS_STRING(member)[:size])).append(member)
    return bundles


cdef dict _bundle_many(list members):
    # The members of one process share a key of some 26 bytes. To slice and hash it for each
    # would be most of the work, so the first keys met are compared where they lie. Entry 0
    # stays empty and fits no key. An entry's pointers stay good: the dict holds its list, and
    # the list the member that the key is part of.
    cdef uint16_t index[BUCKETS]
    cdef Entry entries[ENTRIES]
    cdef Entry* entry
    cdef int used = 0
    cdef uint32_t hashed, buckets = FEW if len(members) <= FEW else BUCKETS
    cdef dict bundles = {}
    cdef list names
    cdef const char* data
    cdef Py_ssize_t size
    memset(index, 0, buckets * sizeof(uint16_t))
    entries[0].size = 0
    for member in members:
        size = _key_size(member)
        if size == 0:
            continue
        data = PyBytes_AS_STRING(member)
        hashed = _hash(data, size) & (buckets - 1)
        entry = &entries[index[hashed]]
        if entry.size == size and memcmp(entry.key, data, size) == 0:
            (<list> entry.names).append(member)
            continue
        if index[hashed] or used + 1 == ENTRIES:
            names = _names_of(bundles, data[:size])
        else:  # nobody has met a key of this hash
            names = bundles[data[:size]] = []
        names.append(member)
        if used + 1 < ENTRIES:
            used += 1
            index[hashed] = used
            entries[used] = Entry(data, size, <PyObject*> names)
    return bundles
