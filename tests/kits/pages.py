"""An HTML page as tests read it: its elements, its text, and everything in it that could load something."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}
LOADING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background", "formaction"}


class Page(HTMLParser):
    """A parsed page. elements: tags with their attributes, in order. text: outside of style and script. headings: of
    level 2. addresses: values of attributes that load something. unclosed: tags that were opened and not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.unclosed: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.addresses += [value or "" for name, value in attrs if name in LOADING]
        if tag == "h2":
            self.headings.append("")
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.unclosed.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed[-1] == tag, f"</{tag}> closes <{self.unclosed[-1]}>"
        self.unclosed.pop()

    def handle_data(self, data: str) -> None:
        if self.unclosed and self.unclosed[-1] not in ("style", "script"):
            self.text += data
            if "h2" in self.unclosed:
                self.headings[-1] += data

    def count(self, tag: str) -> int:
        """How many elements of a tag there are."""
        return sum(name == tag for name, _ in self.elements)
