"""What `_envelope`, `_framing` and `_aead` do, in readable Python: oracle and baseline.

Errors are those of the package, their texts are not compared.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import itertools
import os
import struct

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from channels_redis_fast.exceptions import InvalidMessage, UnreadableMessage

CHANNEL = "__asgi_channel__"
PACKING = (TypeError, ValueError, OverflowError, RecursionError)


# --- _envelope


def pack(message):
    if not isinstance(message, dict):
        raise InvalidMessage(message)
    if CHANNEL in message:
        raise InvalidMessage(message)
    try:
        return msgpack.packb(message)
    except PACKING as error:
        raise InvalidMessage(message) from error


def header(count, fix, fix_limit, codes):
    """The smallest msgpack header: `codes` are (first byte, struct format, limit)."""
    if count < fix_limit:
        return bytes([fix | count])
    for code, form, limit in codes:
        if count < limit:
            return bytes([code]) + struct.pack(form, count)
    raise ValueError(count)


def map_header(count):
    return header(count, 0x80, 16, [(0xDE, ">H", 1 << 16), (0xDF, ">I", 1 << 32)])


def array_header(count):
    return header(count, 0x90, 16, [(0xDC, ">H", 1 << 16), (0xDD, ">I", 1 << 32)])


def name_entry(name):
    codes = [(0xD9, ">B", 1 << 8), (0xDA, ">H", 1 << 16), (0xDB, ">I", 1 << 32)]
    return header(len(name), 0xA0, 32, codes) + name


def split_map(body):
    """How many entries a packed map says it has, and what follows its header."""
    if body[:1] and body[0] & 0xF0 == 0x80:
        return body[0] & 0x0F, body[1:]
    if body[:1] == b"\xde" and len(body) >= 3:
        return struct.unpack(">H", body[1:3])[0], body[3:]
    if body[:1] == b"\xdf" and len(body) >= 5:
        return struct.unpack(">I", body[1:5])[0], body[5:]
    raise ValueError(body)


def splice(head, body, channel):
    if isinstance(channel, str):
        channel = channel.encode()
    count, entries = split_map(body)
    key = name_entry(CHANNEL.encode())
    return head + map_header(count + 1) + entries + key + name_entry(channel)


def splice_list(head, body, channels):
    count, entries = split_map(body)
    key = name_entry(CHANNEL.encode())
    names = [name_entry(channel) for channel in channels]
    array = array_header(len(channels)) + b"".join(names)
    return head + map_header(count + 1) + entries + key + array


def unpack(payload, start=0):
    if not 0 <= start <= len(payload):
        raise UnreadableMessage(payload)
    try:
        message = msgpack.unpackb(payload[start:])
    except (*PACKING, msgpack.UnpackException) as error:
        raise UnreadableMessage(payload) from error
    if not isinstance(message, dict):
        raise UnreadableMessage(payload)
    channels = None
    if CHANNEL in message:
        channels = message.pop(CHANNEL)
        if isinstance(channels, str):
            channels = [channels]
        if not isinstance(channels, list):
            raise UnreadableMessage(payload)
        if not all(isinstance(name, str) for name in channels):
            raise UnreadableMessage(payload)
    flat = not any(isinstance(value, (list, dict)) for value in message.values())
    return channels, message, flat


# --- _framing


def unique(drawn, counter, length):
    """The bytes that UniqueBytes makes of its 6 random ones, from a length of 12."""
    size = min(length - 6, 8)
    return drawn + bytes(length - 6 - size) + counter.to_bytes(size, "big")


class UniqueBytes:
    """A counter behind 6 random bytes."""

    def __init__(self, length):
        self.length = length
        self.drawn = os.urandom(6)
        self.counter = itertools.count()

    def next(self):
        return unique(self.drawn, next(self.counter), self.length)


class FernetFrames:
    """The Fernet specification, step by step."""

    def __init__(self, keys):
        self.keys = [hashlib.sha256(_encoded(key)).digest() for key in keys]

    def seal_at(self, payload, now, iv):
        key = self.keys[0]
        padder = padding.PKCS7(128).padder()
        padded = padder.update(payload) + padder.finalize()
        encryptor = Cipher(algorithms.AES(key[16:]), modes.CBC(iv)).encryptor()
        ciphertext = encryptor.update(padded) + encryptor.finalize()
        signed = b"\x80" + struct.pack(">Q", now) + iv + ciphertext
        mac = hmac.digest(key[:16], signed, "sha256")
        return base64.urlsafe_b64encode(signed + mac)

    def open_at(self, token, ttl, now):
        try:
            raw = base64.urlsafe_b64decode(token)
        except ValueError as error:
            raise UnreadableMessage(token) from error
        if base64.urlsafe_b64encode(raw) != token:  # what no Fernet wrote
            raise UnreadableMessage(token)
        signed, mac = raw[:-32], raw[-32:]
        if raw[:1] != b"\x80" or len(signed) < 41 or (len(signed) - 9) % 16:
            raise UnreadableMessage(token)
        for key in self.keys:
            if hmac.compare_digest(mac, hmac.digest(key[:16], signed, "sha256")):
                check_age(struct.unpack(">Q", signed[1:9])[0], ttl, now)
                return self._decrypt(key, signed[9:25], signed[25:])
        raise UnreadableMessage(token)

    def _decrypt(self, key, iv, ciphertext):
        decryptor = Cipher(algorithms.AES(key[16:]), modes.CBC(iv)).decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        unpadder = padding.PKCS7(128).unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError as error:
            raise UnreadableMessage("padding") from error


def check_age(made, ttl, now):
    if ttl is not None and (made + ttl < now or now + 60 < made):
        raise UnreadableMessage(made)


def _encoded(key):
    return key.encode() if isinstance(key, str) else key


# --- _aead


class AesGcmFrames:
    """The frame that the docstring of the compiled class lays out."""

    def __init__(self, keys):
        self.keys = [hashlib.sha256(_encoded(key)).digest() for key in keys]

    def seal_at(self, payload, context, now, salt, counter):
        key = self.keys[0]
        head = b"\xc1\x01" + self._id(key) + salt
        nonce = now.to_bytes(5, "big") + counter.to_bytes(7, "big")
        cipher = self._cipher(key, salt)
        return head + nonce + cipher.encrypt(nonce, payload, head + context)

    def open_at(self, frame, context, ttl, now):
        head, nonce, sealed = frame[:22], frame[22:34], frame[34:]
        if head[:2] != b"\xc1\x01" or len(sealed) < 16:
            raise UnreadableMessage(frame)
        for key in self.keys:
            if self._id(key) == head[2:6]:
                cipher = self._cipher(key, head[6:])
                break
        else:
            raise UnreadableMessage(frame)
        try:
            payload = cipher.decrypt(nonce, sealed, head + context)
        except InvalidTag as error:
            raise UnreadableMessage(frame) from error
        check_age(int.from_bytes(nonce[:5], "big"), ttl, now)
        return payload

    def _id(self, key):
        return hmac.digest(key, b"channels_redis_fast aes-gcm 1 key id", "sha256")[:4]

    @staticmethod
    @functools.lru_cache(1024)
    def _cipher(key, salt):
        purpose = b"channels_redis_fast aes-gcm 1 subkey" + salt
        return AESGCM(hmac.digest(key, purpose, "sha256"))
