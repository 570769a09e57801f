"""Registry of cleaners, and the cleaners of each cleaner.kind (``config.names.CLEANER_KINDS``).

A cleaner of your own: write a class with the members of ``base.Cleaner``, call ``register_cleaner(NAME, CLASS)``, and
train with cleaner.kind=NAME. Reports and tables show its columns without further changes.
"""

from collections.abc import Callable

from fastcpc.cleaner.base import Cleaner, Similarity
from fastcpc.cleaner.confusion import Confusion
from fastcpc.cleaner.gmm import Gmm
from fastcpc.cleaner.prototypes import ContrastivePrototypes, Prototypes
from fastcpc.config.names import CLEANER_KINDS

_CLEANERS: dict[str, Callable[[], Cleaner]] = {
    "gmm_agn": lambda: Gmm(per_class=False),
    "gmm_awr": lambda: Gmm(per_class=True),
    "prototypes": Prototypes,
    "contrastive": ContrastivePrototypes,
    "confusion": Confusion,
}


def register_cleaner(name: str, factory: Callable[[], Cleaner], kind: tuple[str, ...] = ()) -> None:
    """Make a cleaner known as cleaner.kind=NAME.

    kind: the cleaners that run for it, in order and by name, where it has a teacher; empty: this cleaner alone.
    """
    _CLEANERS[name] = factory
    CLEANER_KINDS[name] = kind or (name,)


def unregister_cleaner(name: str) -> None:
    """Remove a cleaner and its cleaner.kind, which ``register_cleaner`` added."""
    del _CLEANERS[name], CLEANER_KINDS[name]


def registered_cleaners() -> dict[str, Callable[[], Cleaner]]:
    """The factory of every registered cleaner by name."""
    return dict(_CLEANERS)


def cleaners_of(kind: str) -> tuple[Cleaner, ...]:
    """The cleaners of a cleaner.kind, in the order in which they run; empty for none."""
    return tuple(_CLEANERS[name]() for name in CLEANER_KINDS[kind])


def cleaner_title(name: str) -> str:
    """The name in the texts of reports of the cleaner with this ``Cleaner.name``."""
    titles = {cleaner.name: cleaner.title for cleaner in (factory() for factory in _CLEANERS.values())}
    return titles.get(name) or name


def prototype_similarity(kind: str) -> Similarity | None:
    """How a run of this cleaner.kind compares prototypes; None where it trains none."""
    return next((cleaner.similarity for cleaner in cleaners_of(kind) if cleaner.similarity), None)
