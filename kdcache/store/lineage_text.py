"""Lineage in words: a chain of stores as one line, and notes on parents that were not sealed."""

from collections.abc import Sequence

from kdcache.store.lineage import Ancestor

SHOWN = 16  # digits of an id that people see


def unsealed_notes(ancestors: Sequence[Ancestor]) -> list[str]:
    """Notes for the user, one a parent that was not sealed, and so cannot be named by a content id."""
    return [
        f"this teacher was taught by a store that was not sealed (identity {(ancestor.identity or '')[:SHOWN]}, "
        f"teacher {ancestor.teacher}): it is not among the parents; seal it and name its content id with --parents"
        for ancestor in ancestors
        if ancestor.content_id is None
    ]


def render(ancestor: Ancestor) -> str:
    """A chain as one line: `1f2e3d4c5b6a7988 (net.py:small) <- 77aa... (torchvision:resnet50)`. Several parents stand
    in brackets."""
    name = ancestor.content_id[:SHOWN] if ancestor.content_id is not None else "not sealed"
    if ancestor.content_id is None and ancestor.identity is not None:
        name += f", identity {ancestor.identity[:SHOWN]}"
    text = name + (f" ({ancestor.teacher})" if ancestor.teacher else "")
    parents = [render(parent) for parent in ancestor.parents]
    if not parents:
        return text
    return f"{text} <- " + (parents[0] if len(parents) == 1 else f"[{'; '.join(parents)}]")
