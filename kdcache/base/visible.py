"""Text of strangers, shown harmless: characters without a shape of their own are written out."""


def visible(text: str, *, keep: str = "") -> str:
    """Text whose control and bidirectional characters are shown as \\x1b and the like, apart from those to keep."""
    return "".join(
        character if character.isprintable() or character in keep else f"\\x{ord(character):02x}" for character in text
    )
