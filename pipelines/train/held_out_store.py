"""The held-out store of a training: the same teacher's answers to rows that it was not trained on."""

from collections.abc import Sequence

from kdcache.base.records import require_equal
from kdcache.store.store import Store


def held_out_store(url: str, stores: Sequence[Store], *, advice: str) -> Store:
    """The store at a path or address. Raises MismatchError where its teacher is not that of the stores."""
    store = Store.open(url)
    problem = f"{store.folder.root} is of another teacher than {stores[0].folder.root}:"
    require_equal(stores[0].identity.teacher, store.identity.teacher, problem, advice, "teacher.")
    return store
