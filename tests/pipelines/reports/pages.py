"""What a browser makes of a page, read without one."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page's elements with their attributes, and all its text outside script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.elements, self.words = text, [], ""
        self._inside: str | None = None
        self._texts: list[tuple[str | None, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words += data + " "
            self._texts.append((self._inside, data))

    def handle_endtag(self, tag: str) -> None:
        if self._inside not in ("script", "style"):
            self._inside = None

    def count(self, tag: str, **wanted: str) -> int:
        """How many elements there are with these classes and trial numbers."""
        found = [attrs for name, attrs in self.elements if name == tag]
        pairs = [(key.replace("_", "-"), value) for key, value in wanted.items()]
        return sum(all(value in (attrs.get(key) or "").split() for key, value in pairs) for attrs in found)

    def texts_of(self, tag: str) -> list[str]:
        """The texts of all elements of a kind that hold text alone."""
        return [words for inside, words in self._texts if inside == tag]
