"""CONFIG["hosts"] -> the ways to connect: one server, Sentinel, or a Cluster."""

from __future__ import annotations

from typing import Any

from .._masking import Masked, without_frames
from ..exceptions import InvalidSetting
from .cluster_host import ClusterHost
from .host import Host
from .host_settings import list_of_settings, refused
from .sentinels import SentinelHost


def decode_hosts(hosts: Any, connect_timeout: float) -> list[Host]:
    """The entries of `hosts`, checked; raises `InvalidSetting` naming a bad one.

    It comes without the frames that it passed: some of their variables are secrets.
    """
    hosts = hosts if isinstance(hosts, Masked) else Masked(hosts)
    try:
        return [
            _make_host(one, connect_timeout) for one in list_of_settings(hosts.value)
        ]
    except InvalidSetting as error:
        problem = error
    raise without_frames(problem)


def _make_host(settings: dict[str, Any], connect_timeout: float) -> Host:
    kind = Host
    if "cluster" in settings:
        kind = ClusterHost
    elif "sentinels" in settings:
        kind = SentinelHost
    try:
        host = kind(settings, connect_timeout)
        host.try_arguments()
    except Exception as error:  # of whatever class redis-py raises
        raise refused(settings, error) from None
    return host
