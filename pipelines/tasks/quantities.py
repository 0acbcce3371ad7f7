"""References that are one number as people write it, which the rule of the last number reads as it is meant."""

from __future__ import annotations

import regex

# What the answer stands behind in a longer reference: a line's end, ####, =, a colon of no time, is, a sentence's end.
_MARK = regex.compile(r"\n|####|(?<![<>!~≈≠])=|(?<!\d\s*):|\b(?:is|are)\b|[.!?]\s+(?=\p{Lu})")
_WORD = r"\p{L}[\p{L}.'’]*[²³]?"  # also an abbreviation, an area or a volume
_WHOLE = regex.compile(
    r"(?:\*\*|[\"'`$\s]|\\boxed\{)*"
    r"(?<before>(?:\p{L}[\p{L}'’]*,?\s+)*)"
    r"(?:\\?\p{Sc}|[A-Z]{2,3}\p{Sc}\s?|Rs\.\s)?"
    r"(?<number>[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?)"
    rf"\s?(?:\\?[%‰°′″\p{{Sc}}])?\s?(?<unit>\(?(?:{_WORD}(?:(?:,?\s+|/|\s?·\s?|-){_WORD})*)?\)?)"
    r"[*\"'`$}.\s]*"
)
_FACTORS = regex.compile(r"[kKMB]")  # in their case: m is a metre
# Words that make the number another one, or say that it is not alone.
_OTHERS = regex.compile(
    r"bn|mn|mio|mrd|hundreds?|thousands?|[mbtr]+illions?|dozens?|lakhs?|crores?|[万億亿千百].*|[einxyzπ]|pi"
    r"|hal(?:f|ves)|thirds?|quarters?|twice|minus|negative|plus|times|and|n?or|to|out|between|than|above|over|below|under"
    r"|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\p{L}+teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty"
)


def number_meant(text: str) -> float | None:
    """The number that a reference is, with at most a unit, a currency and words; or that it ends in, behind a mark.

    None where it is no number, several, or written so that a rule which takes commas out and knows digits, a point and
    "-" alone would read another one: 3,5, 1 200, 1'200, 3/4, 5½, .5, 1e5, 2:30, 5 million, 12 cm2, - 5.
    """
    start = max((mark.end() for mark in _MARK.finditer(text.strip())), default=0)
    found = _WHOLE.fullmatch(text.strip(), start)
    if found is None:
        return None
    words = regex.findall(r"\p{L}+", f"{found['before']} {found['unit']}")
    if any(_FACTORS.fullmatch(word) or _OTHERS.fullmatch(word.casefold()) for word in words):
        return None
    return float(found["number"].replace(",", ""))
