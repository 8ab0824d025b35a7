"""What stands around a serialised message in Redis: unique bytes, Fernet tokens.

AES comes from `cryptography`, SHA-256 from the standard library; the frames
around them are written and read here. Nothing secret is ever part of an error.
"""

import hashlib

cimport cython
from libc.string cimport memcpy, memset
from libc.time cimport time

from channels_redis_fast.wire.encryption_keys import ciphers, key_digests
from channels_redis_fast.exceptions import InvalidSetting

include "_frames.pxi"


cdef enum:
    MAX_LENGTH = 65536


@cython.final
@cython.auto_pickle(False)
cdef class UniqueBytes:
    """Makes the bytes that keep two equal messages apart in a sorted set.

    `length` bytes each. With 12 and more: 6 random bytes, zeros, and a counter
    of 6 to 8 bytes, big-endian, so that members of one sender with equal scores
    keep their order. With fewer they are random.
    """

    cdef readonly Py_ssize_t length
    cdef int counter_size
    cdef uint64_t counter, limit, forks
    cdef uint8_t[6] drawn

    def __init__(self, length) -> None:
        if type(length) is not int or not 0 <= length <= MAX_LENGTH:
            raise InvalidSetting(
                f"random_prefix_length must be an int from 0 to {MAX_LENGTH}, not {length!r}"
            )
        self.length = length
        self.counter_size = min(max(self.length - 6, 6), 8)
        self.limit = <uint64_t> -1 >> (64 - 8 * self.counter_size)
        self.reseed()

    def reseed(self) -> None:
        """Draw the random part again; done by itself in the child after a fork."""
        self.draw()

    @cython.critical_section
    cdef int draw(self) except -1:
        cdef bytes drawn = random_bytes(6)
        memcpy(self.drawn, view(drawn), 6)
        self.counter = 0
        self.forks = forks
        return 0

    @cython.critical_section
    def next(self) -> bytes:
        """Return `length` bytes; from 12 on, no other call returns them in any thread."""
        cdef uint64_t counter
        if self.length < 12:
            return random_bytes(self.length)
        if self.forks != forks or self.counter == self.limit:
            self.draw()
        counter, self.counter = self.counter, self.counter + 1
        cdef bytes result = new_bytes(self.length)
        cdef uint8_t* out = view(result)
        memcpy(out, self.drawn, 6)
        memset(out + 6, 0, self.length - 6 - self.counter_size)
        put_number(out + self.length - self.counter_size, counter, self.counter_size)
        return result


# --- Base64, urlsafe and padded (RFC 4648 section 5)

cdef const uint8_t* DIGITS = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)
cdef uint8_t[256] VALUES


cdef void fill_values() noexcept nogil:
    cdef int value
    memset(VALUES, 0xff, 256)
    for value in range(64):
        VALUES[DIGITS[value]] = <uint8_t> value


fill_values()


cdef void encode(uint8_t* token, const uint8_t* raw, Py_ssize_t size) noexcept nogil:
    """Write `size` raw bytes as base64.

    They may be the end of the very room that the token fills: each group is
    read before it is written, and writing never overtakes reading.
    """
    cdef uint64_t group
    while size > 0:
        group = raw[0] << 16
        if size > 1:
            group |= raw[1] << 8
        if size > 2:
            group |= raw[2]
        token[0] = DIGITS[group >> 18]
        token[1] = DIGITS[group >> 12 & 63]
        token[2] = DIGITS[group >> 6 & 63] if size > 1 else c"="
        token[3] = DIGITS[group & 63] if size > 2 else c"="
        raw, token, size = raw + 3, token + 4, size - 3


cdef inline uint8_t decode_group(const uint8_t* digits, uint8_t* out) noexcept nogil:
    """Write the 3 bytes of 4 digits, return a value over 63 when one is no digit."""
    cdef uint8_t a = VALUES[digits[0]], b = VALUES[digits[1]]
    cdef uint8_t c = VALUES[digits[2]], d = VALUES[digits[3]]
    out[0] = a << 2 | b >> 4
    out[1] = b << 4 | c >> 2
    out[2] = c << 6 | d
    return a | b | c | d


cdef bytes decode(bytes token):
    """Return what `encode` wrote as token, None when it can't have written it."""
    cdef const uint8_t* digits = view(token)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(token), at
    cdef uint8_t[4] tail
    cdef uint8_t[3] decoded
    cdef uint8_t wrong = 0
    cdef int padding = 0
    if size < 4 or size % 4:
        return None
    memcpy(tail, digits + size - 4, 4)
    while padding < 2 and tail[3 - padding] == c"=":
        tail[3 - padding] = c"A"  # of value 0
        padding += 1
    cdef bytes result = new_bytes(size // 4 * 3 - padding)
    cdef uint8_t* out = view(result)
    for at in range(0, size - 4, 4):
        wrong |= decode_group(digits + at, out)
        out += 3
    wrong |= decode_group(tail, decoded)
    memcpy(out, decoded, 3 - padding)
    for at in range(3 - padding, 3):  # bits that are part of no byte
        wrong |= 0x80 if decoded[at] else 0
    return None if wrong & 0xc0 else result


# --- Fernet (https://github.com/fernet/spec/blob/master/Spec.md)

cdef enum:
    FERNET_VERSION = 0x80
    BLOCK = 16
    FERNET_HEAD = 9  # version, seconds since 1970 in 8 bytes
    MAC = 32


@cython.final
@cython.internal
@cython.auto_pickle(False)
cdef class FernetKey:
    """One key: SHA-256 states for HMAC, and idle AES-CBC contexts.

    To set up a context takes much longer than to encrypt a message, so contexts
    go on from one message to the next. CBC allows it: a message depends on what
    was before it by one block only, and that block is its initialisation vector.

    Encrypting, one random block R goes in front of the message. It comes out as
    E(R xor last block): the cipher applied to a block that no other message
    has, which NIST SP 800-38A, appendix C, recommends as unpredictable vector.
    Decrypting, the vector goes in front, what it gives is thrown away.
    """

    cdef object inner, outer, cipher
    cdef list encryptors, decryptors

    def __init__(self, bytes digest not None):
        # HMAC (RFC 2104): the key, 16 bytes, is padded to a block of SHA-256.
        padded = digest[:16].ljust(64, b"\0")
        self.inner = hashlib.sha256(bytes([byte ^ 0x36 for byte in padded])).copy
        self.outer = hashlib.sha256(bytes([byte ^ 0x5c for byte in padded])).copy
        cipher = ciphers()
        aes = cipher.algorithms.AES(digest[16:])
        self.cipher = lambda iv: cipher.Cipher(aes, cipher.modes.CBC(iv))
        self.encryptors = []
        self.decryptors = []

    cdef bytes mac(self, bytes data):
        inner, outer = self.inner(), self.outer()
        inner.update(data)
        outer.update(inner.digest())
        return outer.digest()

    cdef bytes encrypt(self, bytes blocks):
        """Return as many blocks: the vector for the first, the rest encrypted."""
        try:
            update = self.encryptors.pop()
        except IndexError:
            update = self.cipher(random_bytes(BLOCK)).encryptor().update
        cdef bytes result = update(blocks)
        keep(self.encryptors, update)
        return result

    cdef bytes decrypt(self, bytes blocks):
        """Return as many blocks: nonsense for the vector in front, then the rest."""
        try:
            update = self.decryptors.pop()
        except IndexError:
            update = self.cipher(bytes(BLOCK)).decryptor().update
        cdef bytes result = update(blocks)
        keep(self.decryptors, update)
        return result


cdef int keep(list idle, update) except -1:
    """Whoever uses a context took it out of the list: two threads never share one."""
    if len(idle) < 8:
        idle.append(update)
    return 0


cdef bytes pad(bytes front, bytes payload):
    """Return front and payload, filled up to whole blocks (PKCS 7)."""
    cdef Py_ssize_t start = PyBytes_GET_SIZE(front), size = PyBytes_GET_SIZE(payload)
    cdef int padding = BLOCK - size % BLOCK
    cdef bytes result = new_bytes(start + size + padding)
    cdef uint8_t* out = view(result)
    memcpy(out, view(front), start)
    memcpy(out + start, view(payload), size)
    memset(out + start + size, padding, padding)
    return result


cdef bytes unpad(bytes blocks):
    """Return the payload in decrypted blocks, the first of them dropped."""
    cdef const uint8_t* data = view(blocks)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(blocks), i
    cdef int padding = data[size - 1], wrong = 0
    for i in range(size - min(padding, BLOCK), size):
        wrong |= data[i] ^ padding
    if wrong or not 0 < padding <= BLOCK:
        raise UnreadableMessage("the padding of a Fernet token is wrong")
    return blocks[BLOCK:size - padding]


cdef bytes fernet_token(FernetKey key, bytes blocks, uint64_t now):
    """Frame the vector and the encrypted blocks."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(blocks), whole = FERNET_HEAD + size + MAC
    cdef bytes signed = new_bytes(FERNET_HEAD + size)
    cdef uint8_t* raw = view(signed)
    raw[0] = FERNET_VERSION
    put_number(raw + 1, now, 8)
    memcpy(raw + FERNET_HEAD, view(blocks), size)
    cdef bytes mac = key.mac(signed)
    cdef bytes token = new_bytes((whole + 2) // 3 * 4)
    raw = view(token) + PyBytes_GET_SIZE(token) - whole
    memcpy(raw, view(signed), FERNET_HEAD + size)
    memcpy(raw + FERNET_HEAD + size, view(mac), MAC)
    encode(view(token), raw, whole)
    return token


cdef inline bint same(const uint8_t* one, const uint8_t* other) noexcept nogil:
    """Compare two MACs in a time that doesn't tell where they differ."""
    cdef int i, difference = 0
    for i in range(MAC):
        difference |= one[i] ^ other[i]
    return difference == 0


@cython.final
@cython.auto_pickle(False)
cdef class FernetFrames:
    """Encrypts with Fernet: the tokens of `cryptography.fernet`, bit for bit.

    `keys` are str or bytes of any length; the Fernet key is the SHA-256 of one.
    The first encrypts, all decrypt. Raises InvalidSetting for other keys, and
    without `cryptography`. Now is `clock_offset` seconds after this machine's clock.
    """

    cdef tuple keys
    cdef public int64_t clock_offset

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self.keys = tuple([FernetKey(digest) for digest in key_digests(keys)])

    def seal(self, bytes payload not None) -> bytes:
        """Return the payload as a Fernet token of now."""
        cdef FernetKey key = self.keys[0]
        cdef bytes blocks = key.encrypt(pad(random_bytes(BLOCK), payload))
        return fernet_token(key, blocks, time(NULL) + self.clock_offset)

    def seal_at(self, bytes payload not None, uint64_t now, bytes iv not None) -> bytes:
        """Return the token of a given time, in seconds, and vector: for tests."""
        cdef FernetKey key = self.keys[0]
        cdef bytes blocks = key.cipher(iv).encryptor().update(pad(b"", payload))
        return fernet_token(key, iv + blocks, now)

    def open(self, bytes token not None, ttl=None) -> bytes:
        """Return the payload of a token.

        Raises UnreadableMessage for what is no token of one of the keys, or was
        changed, and unless `ttl` is None for one older than `ttl` seconds or
        made more than 60 s in the future.
        """
        return self.open_at(token, ttl, time(NULL) + self.clock_offset)

    def open_at(self, bytes token not None, ttl, uint64_t now) -> bytes:
        """Return the payload as `open` does at a given time, in seconds: for tests."""
        cdef bytes raw = decode(token), signed, mac
        cdef FernetKey key
        cdef Py_ssize_t size = 0 if raw is None else PyBytes_GET_SIZE(raw) - MAC
        if size < FERNET_HEAD + 2 * BLOCK or (size - FERNET_HEAD) % BLOCK:
            raise UnreadableMessage("not a Fernet token")
        if view(raw)[0] != FERNET_VERSION:
            raise UnreadableMessage("not a Fernet token of a known version")
        signed = raw[:size]
        for key in self.keys:
            mac = key.mac(signed)
            if same(view(mac), view(raw) + size):
                check_age(get_number(view(raw) + 1, 8), ttl, now)
                return unpad(key.decrypt(signed[FERNET_HEAD:]))
        raise UnreadableMessage("a Fernet token was changed, or is of another key")

    def encrypt(self, bytes data not None) -> bytes:
        """The same as `seal`, by the name that `cryptography.fernet` has for it."""
        return self.seal(data)

    def decrypt(self, bytes token not None, ttl=None) -> bytes:
        """The same as `open`, by the name that `cryptography.fernet` has for it."""
        return self.open(token, ttl)
