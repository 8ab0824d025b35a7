"""The entries of CONFIG["hosts"], checked: what kind of host each is, and its settings.

Errors name the entry and the argument, and show no password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .._masking import mask, place_of
from ..exceptions import InvalidSetting

DEFAULT_HOSTS = ("redis://localhost:6379",)
_SCHEMES = ("redis", "rediss", "unix")
_RIGHT = "a URL is as redis://localhost:6379, rediss://localhost:6379 or unix:///path"
_HIGHEST_PORT = 65535
# A name, or an address, which may be one of IPv6.
_HOST = re.compile(r"[^\s/@?#:]+|([^\s/@?#:]*:){2,}[^\s/@?#:]*")
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
_BAD_VALUE = re.compile(r"Invalid value for .(\w+). in connection URL")

Settings = dict[str, Any]


def list_of_settings(hosts: Any) -> list[Settings]:
    """Arguments of redis-py for each entry, with the keys that say which kind it is.

    Raises `InvalidSetting`.
    """
    hosts = hosts or DEFAULT_HOSTS
    if isinstance(hosts, (str, bytes, Mapping)) or not isinstance(hosts, Sequence):
        raise InvalidSetting(
            "hosts must be a list of Redis hosts, even if there is only one, "
            f"not {mask(hosts)}"
        )
    return [_settings(entry) for entry in hosts]


def refused(settings: Settings, error: Exception) -> InvalidSetting:
    """What to raise for settings that redis-py refuses."""
    if bad := _BAD_VALUE.search(str(error)):
        return _bad(settings, f"no valid value for {bad[1]}")
    if "@" in str(settings.get("address")).partition("?")[2]:
        return _bad(settings, "no such argument; a ? in a password is written %3F")
    if unknown := _UNKNOWN.search(str(error)):
        return _bad(settings, f"redis-py knows no argument {unknown[1]!r}")
    told = str(error)
    if any(secret in told for secret in _secrets(settings)):
        told = type(error).__name__
    return _bad(settings, told)


def nodes_of(addresses: Any) -> list[tuple[str, int]]:
    """(host, port) pairs."""
    return [(host, int(port)) for host, port in addresses]


def describe(settings: Mapping[str, Any]) -> str:
    """A host in words that may be logged: no password, no user."""
    if "address" in settings:
        return place_of(str(settings["address"]))
    if "cluster" in settings:
        nodes = ", ".join(f"{host}:{port}" for host, port in settings["cluster"])
        return f"cluster {nodes}"
    if "master_name" in settings:
        return f"sentinel master {settings['master_name']}"
    if "path" in settings:
        return f"unix://{settings['path']}"
    return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _settings(entry: Any) -> Settings:
    if isinstance(entry, str):
        settings: Settings = {"address": entry}
    elif isinstance(entry, (tuple, list)) and len(entry) == 2:
        settings = {"host": entry[0], "port": entry[1]}
    elif isinstance(entry, Mapping):
        settings = dict(entry)
    else:
        raise InvalidSetting(
            "a host is a URI, a (host, port) pair or a dict of connection arguments, "
            f"not {mask(entry)}"
        )
    if "cluster" in settings:
        _check_addresses(entry, settings["cluster"], "cluster")
    elif "sentinels" in settings or "master_name" in settings:
        if not ("sentinels" in settings and "master_name" in settings):
            raise _bad(entry, "sentinels and master_name go together")
        _check_addresses(entry, settings["sentinels"], "sentinels")
        _check_text(entry, settings, "master_name")
    elif "address" in settings:
        settings["address"] = _url(entry, settings["address"])
    elif "path" in settings:
        _check_text(entry, settings, "path")
    else:
        _check_address(
            entry, (settings.get("host", "localhost"), settings.get("port", 6379))
        )
    return settings


def _url(entry: Any, address: Any) -> str:
    """A URL as redis-py's two kinds of connections both read it."""
    if not isinstance(address, str):
        raise _bad(entry, f"address must be a str, not {mask(address)}")
    scheme, separator, rest = address.strip().partition("://")
    if not separator:
        raise _bad(entry, _right_form(rest or scheme))
    if scheme.lower() not in _SCHEMES:
        raise _bad(entry, f"address has the scheme {mask(scheme)}: {_RIGHT}")
    url = f"{scheme.lower()}://{rest}"
    try:
        port = urlsplit(url).port
    except ValueError:  # whose text quotes what may be a part of a password
        raise _bad(entry, "no Redis URL: its port is no number up to 65535") from None
    if port == 0:
        raise _bad(entry, "no Redis URL: its port is 0")
    return url


def _right_form(text: str) -> str:
    if not text:
        return f"address is empty: {_RIGHT}"
    if place_of(text) != text:  # with a password, perhaps
        return f"a part is missing: {_RIGHT}"
    scheme, separator, place = text.partition(":")
    if not separator or scheme.lower() not in _SCHEMES:
        scheme, place = "redis", text
    return f"a part is missing, write {scheme.lower()}://{place}"


def _bad(entry: Any, reason: str) -> InvalidSetting:
    return InvalidSetting(f"bad host {mask(entry)}: {reason}")


def _check_text(entry: Any, settings: Settings, name: str) -> None:
    value = settings[name]
    if not isinstance(value, str) or not value:
        raise _bad(entry, f"{name} must be a str, not {mask(value)}")


def _check_addresses(entry: Any, addresses: Any, name: str) -> None:
    if not isinstance(addresses, Sequence) or isinstance(addresses, (str, bytes)):
        raise _bad(entry, f"{name} must be a list")
    if not addresses:
        raise _bad(entry, f"{name} is empty")
    for address in addresses:
        if not isinstance(address, (tuple, list)) or len(address) != 2:
            raise _bad(entry, f"{name}: {mask(address)} is not a (host, port) pair")
        _check_address(entry, address)


def _check_address(entry: Any, address: Any) -> None:
    host, port = address
    if not isinstance(host, str) or not _HOST.fullmatch(host):
        raise _bad(entry, f"host must be a name or an address, not {mask(host)}")
    if not str(port).isdecimal() or not 0 < int(port) <= _HIGHEST_PORT:
        text = f"port must be a number from 1 to {_HIGHEST_PORT}, not {mask(port)}"
        raise _bad(entry, text)


def _secrets(value: Any) -> list[str]:
    """All texts in settings."""
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _secrets(each)]
    if isinstance(value, (list, tuple)):
        return [text for each in value for text in _secrets(each)]
    return [str(value)] if isinstance(value, (str, bytes)) and value else []
