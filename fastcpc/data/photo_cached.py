"""Puts a cache of resized photos before a decoder: what is cached is not decoded."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain

from fastcpc.data.photo_feed import Cut, Decoder, Request
from fastcpc.data.photos.cache import PhotoCache


class CachedDecoder:
    """Requests whose photos are all cached are cut from the cache, runs of others go to the decoder behind."""

    def __init__(self, cached: Decoder, cache: PhotoCache, behind: Decoder) -> None:
        self._cached, self._present, self._behind = cached, cache.present, behind

    @property
    def num_decoded(self) -> int:
        """See ``Decoder``."""
        return self._cached.num_decoded + self._behind.num_decoded

    def cut(self, requests: Iterable[Request]) -> Iterator[Cut]:
        """See ``Decoder.cut``."""
        todo = iter(requests)
        following: list[Request] = []  # the request that ended a run

        def run(cached: bool) -> Iterator[Request]:
            for request in chain([following.pop()], todo):
                if bool(self._present[request.rows].all()) != cached:
                    following.append(request)
                    return
                yield request

        first = next(todo, None)
        following += [] if first is None else [first]
        while following:
            cached = bool(self._present[following[0].rows].all())
            with closing(self._cached.cut(run(True)) if cached else self._behind.cut(run(False))) as cuts:  # type: ignore[type-var]
                yield from cuts
