"""What the codecs for streams of JSON events have in common; a codec adds `encode` and a reader of events."""

from collections.abc import Mapping
from typing import ClassVar, Self

from floop_gateway_core.providers.base import Decoder, UpstreamFault
from floop_gateway_core.providers.faults import http_fault
from floop_gateway_core.providers.options import Options
from floop_gateway_core.providers.reading import Reader, StreamDecoder

__all__ = ["JsonEventCodec"]

_DEFAULT_OPTIONS = Options()


class JsonEventCodec:
    """A codec of one deployment's options. It keeps no state of a request, so one serves them all."""

    reader: ClassVar[type[Reader]]

    def __init__(self, options: Options = _DEFAULT_OPTIONS) -> None:
        self.options = options

    def decoder(self) -> Decoder:
        """Return a decoder for one answer."""
        return StreamDecoder(self.reader())

    def fault(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> UpstreamFault:
        """Return what an answer with an error's status means."""
        return http_fault(status, headers, body, now)

    def without_refused(self, body: bytes) -> Self | None:
        """Return None: by default, no part of a request is optional."""
        return None
