"""Elements of a page, and the page around them. Every text is escaped when the page is written, whoever it is from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element, tostring

Child = Element | str | None
Attributes = Mapping[str, str | float | None]
# What XML and HTML have no way to hold: control characters, and halves of surrogate pairs.
UNPRINTABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000)), "\N{REPLACEMENT CHARACTER}")


def element(name: str, attributes: Attributes | None = None, *children: Child) -> Element:
    """An element of HTML or SVG.

    Args:
        name: its tag.
        attributes: numbers are written with a decimal; those that are None are left out.
        children: elements and texts in their order; None is nothing.
    """
    made = Element(name, {key: _text(value) for key, value in (attributes or {}).items() if value is not None})
    append(made, *children)
    return made


def append(parent: Element, *children: Child) -> None:
    """Put elements and texts at the end of an element."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif child is not None and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + _text(child)
        elif child is not None:
            parent.text = (parent.text or "") + _text(child)


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value.translate(UNPRINTABLE)
    return f"{value:.1f}".removesuffix(".0")


def table(header: Sequence[Child], rows: Sequence[Sequence[Child]], *, kind: str) -> Element:
    """A table whose first column names its rows."""
    head = element("tr", None, *(element("th", {"scope": "col"}, cell) for cell in header))
    body = [
        element("tr", None, element("th", {"scope": "row"}, first), *(element("td", None, cell) for cell in rest))
        for first, *rest in rows
    ]
    return element("table", {"class": kind}, element("thead", None, head), element("tbody", None, *body))


def page(title: str, *content: Element, script: str | None = None) -> str:
    """A whole page as text. Its style and its script are in it, and it is forbidden to load or run anything else."""
    style = files("pipelines.reports").joinpath("page.css").read_text("utf-8")
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'"
    if script is not None:
        policy += f"; script-src '{_digest(script)}'"
    head = element(
        "head",
        None,
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", None, title),
        element("link", {"rel": "icon", "href": "data:,"}),  # or a browser asks the server for one
        element("style", None, style),
    )
    body = element("body", None, *content, None if script is None else element("script", None, script))
    html = element("html", {"lang": "en"}, head, body)
    return f"<!doctype html>\n{tostring(html, encoding='unicode', method='html')}\n"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
