"""A decoder that reads images from the cache and decodes only the others.

``factory`` creates it from two decoders: one for cached images, one for the others.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain

from fastcpc.data.loaders.image_loader import DecodedChunk, Decoder, DecodeRequest
from fastcpc.data.prepare.cache import ImageCache


class CachedDecoder:
    """Crops requests from the cache if it holds all their images, and passes the other requests to a decoder."""

    def __init__(self, cached: Decoder, cache: ImageCache, behind: Decoder) -> None:
        self.cached, self._present, self.behind = cached, cache.present, behind

    @property
    def num_decoded(self) -> int:
        """See ``Decoder``."""
        return self.cached.num_decoded + self.behind.num_decoded

    def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
        """See ``Decoder.decode``."""
        todo = iter(requests)
        following: list[DecodeRequest] = []  # the request that ended a run of requests, if any

        def run(cached: bool) -> Iterator[DecodeRequest]:
            for request in chain([following.pop()], todo):
                if bool(self._present[request.rows].all()) != cached:
                    following.append(request)
                    return
                yield request

        first = next(todo, None)
        following += [] if first is None else [first]
        while following:
            cached = bool(self._present[following[0].rows].all())
            with closing(self.cached.decode(run(True)) if cached else self.behind.decode(run(False))) as cuts:  # type: ignore[type-var]
                yield from cuts
