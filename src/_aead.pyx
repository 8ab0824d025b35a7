"""AES-GCM frames around a serialised message: the cipher is that of `cryptography`."""

import hmac

cimport cython
from libc.time cimport time

from channels_redis_fast.wire.encryption_keys import aes_gcm, key_digests

include "_frames.pxi"

cdef enum:
    MAGIC = 0xc1  # no msgpack, JSON or Fernet token begins so
    VERSION = 1
    KEY_ID = 4
    SALT = 16
    GCM_HEAD = 2 + KEY_ID + SALT
    SECONDS = 5
    COUNTER = 7
    NONCE = SECONDS + COUNTER
    TAG = 16

cdef uint64_t MAX_COUNTER = <uint64_t> 1 << 32
cdef Py_ssize_t MAX_READERS = 1024


@cython.final
@cython.auto_pickle(False)
cdef class AesGcmFrames:
    """Encrypts with AES-256-GCM, faster than Fernet, and bound to a context.

    A frame, all numbers big-endian:

    ====== ==== ==============================================================
    offset size what
    ====== ==== ==============================================================
    0      1    magic 0xC1
    1      1    version 1
    2      4    key id: the first bytes of HMAC(key, "key id")
    6      16   salt: random, drawn by each process
    22     12   nonce: 5 bytes seconds since 1970, 7 bytes counter
    34     n    the payload, encrypted
    34 + n 16   GCM tag, over the payload, the first 22 bytes and the context
    ====== ==== ==============================================================

    HMAC is with SHA-256, `key` the SHA-256 of the configured one, both strings
    here begin with "channels_redis_fast aes-gcm 1 ". The payload is encrypted
    under HMAC(key, "subkey" + salt). The context, the name of the Redis key, is
    not in the frame: a frame moved to another channel can't be opened there.

    Nonces: a subkey belongs to one salt, and within it the counter never
    repeats. Salts are drawn at construction, after a fork and after 2**32
    frames; with 2**40 of them ever drawn, two are equal with a probability
    below 2**-48. A nonce is never left to chance, so no number of messages
    wears a key out. Now is `clock_offset` seconds after this machine's clock.
    """

    cdef tuple keys
    cdef public int64_t clock_offset
    cdef dict readers
    cdef object cipher, invalid_tag
    cdef tuple sender  # the head of its frames, and what encrypts them
    cdef uint64_t counter, forks

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self.cipher, self.invalid_tag = aes_gcm()
        self.keys = tuple([(derive(key, b"key id")[:KEY_ID], key) for key in key_digests(keys)])
        self.readers = {}
        self.reseed()

    def reseed(self) -> None:
        """Draw a new salt; done by itself in the child after a fork."""
        cdef uint64_t seen = forks
        key_id, key = self.keys[0]
        salt = random_bytes(SALT)
        head = bytes([MAGIC, VERSION]) + key_id + salt
        cdef tuple sender = (head, self.subkey(key, salt).encrypt)
        # A counter belongs to its sender, so threads must not switch in between: one
        # statement that frees nothing, for a swap keeps what was there to the end.
        with cython.critical_section(self):
            sender, self.sender, self.counter, self.forks = self.sender, sender, 0, seen

    def seal(self, bytes payload not None, bytes context not None) -> bytes:
        """Return the frame of a payload for this context, made now."""
        return self.seal_at(payload, context, time(NULL) + self.clock_offset)

    def seal_at(self, bytes payload not None, bytes context not None, uint64_t now) -> bytes:
        """Return the frame that `seal` makes at a given time, in seconds: for tests."""
        cdef bytes head, nonce = new_bytes(NONCE)
        cdef tuple sender
        cdef uint64_t counter
        cdef bint worn
        with cython.critical_section(self):
            worn = self.forks != forks or self.counter >= MAX_COUNTER
        if worn:
            self.reseed()
        with cython.critical_section(self):
            sender, counter, self.counter = self.sender, self.counter, self.counter + 1
        head, encrypt = sender
        put_number(view(nonce), now, SECONDS)
        put_number(view(nonce) + SECONDS, counter, COUNTER)
        return head + nonce + encrypt(nonce, payload, head + context)

    def open(self, bytes frame not None, bytes context not None, ttl=None) -> bytes:
        """Return the payload of a frame made for this context.

        Raises UnreadableMessage for what is no frame of one of the keys and
        this context, or was changed, and unless `ttl` is None for one older
        than `ttl` seconds or made more than 60 s in the future.
        """
        return self.open_at(frame, context, ttl, time(NULL) + self.clock_offset)

    def open_at(
        self, bytes frame not None, bytes context not None, ttl, uint64_t now
    ) -> bytes:
        """Return the payload as `open` does at a given time, in seconds: for tests."""
        cdef const uint8_t* data = view(frame)
        cdef bytes payload
        if PyBytes_GET_SIZE(frame) < GCM_HEAD + NONCE + TAG or data[0] != MAGIC:
            raise UnreadableMessage("not an AES-GCM frame")
        if data[1] != VERSION:
            raise UnreadableMessage(f"an AES-GCM frame of version {data[1]}, not {VERSION}")
        head, nonce = frame[:GCM_HEAD], frame[GCM_HEAD:GCM_HEAD + NONCE]
        reader = self.readers.get(head)
        known = reader is not None
        if not known:
            reader = self.new_reader(head)
        try:
            payload = reader.decrypt(nonce, frame[GCM_HEAD + NONCE:], head + context)
        except self.invalid_tag:
            raise UnreadableMessage(
                "an AES-GCM frame was changed, or is of another key or channel"
            ) from None
        if not known:
            self.keep_reader(head, reader)
        check_age(get_number(data + GCM_HEAD, SECONDS), ttl, now)
        return payload

    cdef object subkey(self, bytes key, bytes salt):
        return self.cipher(derive(key, b"subkey" + salt))

    cdef object new_reader(self, bytes head):
        for key_id, key in self.keys:
            if key_id == head[2:2 + KEY_ID]:
                return self.subkey(key, head[2 + KEY_ID:])
        raise UnreadableMessage("an AES-GCM frame is of another key")

    @cython.critical_section
    cdef int keep_reader(self, bytes head, reader) except -1:
        """Only after it has opened a frame: made-up salts push nobody out."""
        while len(self.readers) >= MAX_READERS:
            self.readers.pop(next(iter(self.readers)), None)
        self.readers[head] = reader
        return 0

    @staticmethod
    def looks_like(bytes frame not None) -> bool:
        """Return whether these are an AES-GCM frame's first bytes, of any version."""
        return PyBytes_GET_SIZE(frame) > 0 and view(frame)[0] == MAGIC


cdef bytes derive(bytes key, bytes purpose):
    return hmac.digest(key, b"channels_redis_fast aes-gcm 1 " + purpose, "sha256")
