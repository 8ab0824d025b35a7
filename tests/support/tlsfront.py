"""TLS in front of a server that has none, so that TLS is tested everywhere."""

from __future__ import annotations

from typing import Any

from support.certificates import Certificates
from support.proxy import Proxy
from support.servers import Server


class TLSFront:
    """A Valkey behind a proxy that speaks TLS; otherwise like a `Server`.

    `client()` goes past the front.
    """

    def __init__(
        self, certificates: Certificates, *, client_certificates: bool = False
    ) -> None:
        context = certificates.server_context(client_certificates=client_certificates)
        self.server = Server()
        self.proxy = Proxy(self.server, tls=context)
        self.host, self.port = self.address = self.proxy.address
        self.url = self.proxy.url

    def __enter__(self) -> TLSFront:
        self.server.start()
        self.proxy.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.proxy.stop()
        finally:
            self.server.stop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)
