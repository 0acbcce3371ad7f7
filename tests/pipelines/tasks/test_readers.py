"""What is read in a generated text, and when it is right: a table of outputs that readers get wrong."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace

import pytest

from pipelines.tasks import readers
from pipelines.tasks.readers import Value, open_reader

# What a model said; what LLM-Adapters' and pyreft's rule reads: the last match of -?\d+\.?\d* without commas, worked
# out by hand; inf, its sign that there is none, is None here.
NUMBERS: list[tuple[str, float | None]] = [
    ("the answer is 1,200.", 1200.0),
    ("answer2", 2.0),
    ("-3", -3.0),
    ("3/4", 4.0),  # the rule knows no fractions
    ("(B)", None),
    ("12 %", 12.0),
    ("x = 5", 5.0),
    ("", None),
    ("no number at all", None),
    ("5.", 5.0),
    ("$1,234,567.89 in all", 1234567.89),
    ("first 3, then 4.5 apples", 4.5),
    ("10 - 3 = 7", 7.0),
    ("10-3", -3.0),  # a hyphen is a sign
    ("#### 72", 72.0),
    ("it costs 1 200", 200.0),  # a space separates no thousands
    ("-0", 0.0),
    (".5", 5.0),
    ("2.50", 2.5),
    ("1e5", 5.0),
    ("\\boxed{42}", 42.0),
    ("step 1\nstep 2\nso 7 dogs", 7.0),
    ("007", 7.0),
    ("−3", 3.0),  # the typographic minus is no sign
    ("9" * 400, None),  # beyond what a number holds
]


def read(text: str, name: str, **more: str) -> Value | None:
    return open_reader({"name": name, **more}).read(text)


def test_the_table_is_that_of_the_published_rule() -> None:
    """Of extract_answer_number in LLM-Adapters' evaluate.py, in its own words; inf is its sign for none."""

    def published(sentence: str) -> float:
        found = re.findall(r"-?\d+\.?\d*", sentence.replace(",", ""))
        return float(found[-1]) if found else math.inf

    assert [number for _, number in NUMBERS] == [
        None if math.isinf(published(said)) else published(said) for said, _ in NUMBERS
    ]


@pytest.mark.parametrize(("said", "number"), NUMBERS)
def test_a_number_is_the_last_as_the_literature_reads_it(said: str, number: float | None) -> None:
    assert read(said, "number") == number


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("8.001", True),
        ("7.9995", True),
        ("8.0011", False),
        ("8", True),
        ("it is 8.0.", True),
        ("-8", False),
        ("?", None),
    ],
)
def test_a_number_is_right_within_the_tolerance_of_the_literature(said: str, right: bool | None) -> None:
    assert open_reader({"name": "number"}).judge([(said, "8.0")]) == [right]


@pytest.mark.parametrize(
    "reference",
    [
        *("3/4", "1 / 2", ".5", "1e5", "2.5E+3", "none", "\N{MINUS SIGN}3", "1 200", "10-3", "2:30", "2^10"),
        *(
            "3,5",
            "1,23",
            "12,34,5",
            "1,2345",
            "1.200,50",
            "3, 5",
            "1\u202f200",
            "1\xa0200",
            "1'200",
            "1_000",
            "-$5",
            "- 5",
        ),
        *(
            "5½",
            "5²",
            "12 cm2",
            "12 cm^2",
            "x = -$5",
            "5 million",
            "5M",
            "5k",
            "5万",
            "(5)",
            "5!",
            "5 and a half",
            "3 or 5",
        ),
        *("2 hours 30 minutes", "2 hours and 30 minutes", "minus 5", "2π", "5x", r"\sqrt{16}", r"\frac{3}{4}", "H2O"),
        *("at 2:30", "x >= 5", "between 3 and 5", "5 to 6", "1 1/2", "3-5", "٣٫٥", "5 out of 6", "\N{EN DASH}5"),
    ],
)
def test_a_reference_that_the_rule_reads_as_another_number_is_no_reference(reference: str) -> None:
    assert open_reader({"name": "number"}).reference(reference) is None


@pytest.mark.parametrize(
    "reference",
    [
        *("8.0", "1,200", "-3", "6/2 = 3", "so 12 % of 50 is 6.", "#### 72", "The answer: 72", "8 - 5 = 3"),
        *("12 %", "$1,234,567.89", "+5", "5 km/h", "12 m²", "5€", "$-5", "US$5", "Rs. 500", "5.", "3 + 5\n#### 1,008"),
        *(
            "9 (apples)",
            r"$\boxed{42}$",
            "**42**",
            "She has 5 apples left.",
            "He ate 3 of 8. So he has 5 apples.",
            "007",
        ),
    ],
)
def test_other_references_are_read_as_answers_are(reference: str) -> None:
    reader = open_reader({"name": "number"})
    assert reader.reference(reference) == reader.read(reference) is not None


@pytest.mark.parametrize(("reference", "letter"), [("(B)", "B"), ("B, as B has it", "B"), ("A or B", None)])
def test_a_reference_of_several_letters_is_no_reference(reference: str, letter: str | None) -> None:
    assert open_reader({"name": "letter"}).reference(reference) == letter


# What a model said, and the first of five letters that stands alone.
LETTERS: list[tuple[str, str | None]] = [
    ("(B)", "B"),
    ("B", "B"),
    ("B) 5 km", "B"),
    ("Answer: C", "C"),
    ("The correct answer is D.", "D"),
    ("A, not B", "A"),
    ("**E**", "E"),
    ("option_B", "B"),
    ("F", None),  # aqua has five
    ("b", None),
    ("ABBA", None),
    ("answer2", None),
    ("the answer is 1,200.", None),
    ("-3", None),
    ("3/4", None),
    ("12 %", None),
    ("x = 5", None),
    ("", None),
]


@pytest.mark.parametrize(("said", "letter"), LETTERS)
def test_a_letter_is_the_first_of_five_that_stands_alone(said: str, letter: str | None) -> None:
    assert read(said, "letter") == letter


def test_letters_are_those_of_the_literature_but_for_letters_within_words() -> None:
    """The first match of A|B|C|D|E, as LLM-Adapters' evaluate.py and pyreft's compute_metrics.py have it."""
    published = {said: next(iter(re.findall("A|B|C|D|E", said)), None) for said, _ in LETTERS}
    others = {said: (letter, published[said]) for said, letter in LETTERS if letter != published[said]}
    assert others == {"Answer: C": ("C", "A"), "ABBA": (None, "A")}


@pytest.mark.parametrize(
    ("said", "value"),
    [("x #### 1,200 y", "1,200"), ("#### -5\n#### 6", "-5"), ("####", None), ("72", None), ("####   ", None)],
)
def test_a_pattern_gives_what_its_group_matches_first(said: str, value: str | None) -> None:
    assert read(said, "regex", pattern=r"#### ([-\d.,]+)") == value


def test_a_pattern_that_would_take_for_ever_reads_nothing_after_a_second() -> None:
    started = time.monotonic()
    assert read("a" * 60 + "!", "regex", pattern=r"^(?:(a+)+)+$") is None
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ('{"answer": "Paris"}', "Paris"),
        ('Sure: {"answer": 5} and {"answer": 6}', 5.0),
        ('{"thought": {"x": 1}, "answer": true}', "true"),
        ('{"other": 1} {"answer": [1, "a"]}', '[1, "a"]'),
        ('{"answer": {"b": 1, "a": 2}}', '{"a": 2, "b": 1}'),
        ('{"answer": null}', None),
        ('{"answer": "Paris"', None),
        ("Paris", None),
        ("{" * 100_000, None),
        ('{"answer": ' + "[" * 100_000, None),
        ('{"answer": 1' + "0" * 400 + "}", None),
    ],
)
def test_a_field_of_json_is_read(said: str, value: Value | None) -> None:
    assert read(said, "json", field="answer") == value


@pytest.mark.parametrize(
    ("said", "reference", "right"),
    [
        ('{"answer": 5}', '{"answer": 5.0}', True),
        ('{"answer": "PARIS."}', '{"answer": "Paris"}', True),
        ('{"answer": "5"}', '{"answer": 6}', False),
        ("5", '{"answer": 5}', None),
        ('{"answer": 9007199254740993}', '{"answer": 9007199254740992}', False),  # 2^53 + 1 is no fp64 number
        ('{"answer": 9007199254740993}', '{"answer": 9007199254740993}', True),
        ('{"answer": 9007199254740992.0}', '{"answer": 9007199254740992}', True),
    ],
)
def test_fields_of_json_are_one_number_or_one_text(said: str, reference: str, right: bool | None) -> None:
    assert open_reader({"name": "json", "field": "answer"}).judge([(said, reference)]) == [right]


@pytest.mark.parametrize(
    ("said", "right"),
    [("Paris", True), ("  paris. ", True), ("the  Paris", False), ("Paris, France", False), ("", None), ("  ", None)],
)
def test_case_spacing_and_a_full_stop_do_not_count(said: str, right: bool | None) -> None:
    assert open_reader({"name": "exact"}).judge([(said, "Paris")]) == [right]


MATHEMATICS: list[tuple[str, str, bool | None]] = [
    ("the answer is $\\frac{3}{4}$", "0.75", True),
    ("3/4", "0.75", True),
    ("1/4", "3/4", False),
    ("the answer is 1,200.", "1200", True),
    ("12 %", "0.12", True),
    ("x = 5", "5", True),
    ("-3", "3", False),
    ("$\\boxed{x^2+2x+1}$", "$(x+1)^2$", True),
    ("$\\sqrt{4}$", "2", True),
    ("(B)", "2", None),
    ("answer2", "2", None),
]


def test_mathematics_is_equal_as_math_verify_finds_it() -> None:
    """Also fractions and shares, of which the rule of the last number reads another number."""
    judged = open_reader({"name": "math"}).judge([(said, reference) for said, reference, _ in MATHEMATICS])
    assert judged == [right for _, _, right in MATHEMATICS]


def test_what_no_machine_computes_in_time_is_unreadable_and_holds_up_no_other_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "MATH_LIMITS", replace(readers.MATH_LIMITS, answer_seconds=2.0))
    tower = "$9^{9^{9^{9}}}$"  # which no processor gets to the end of
    assert open_reader({"name": "math"}).judge([("5", "5"), (tower, "1"), ("6", "6")]) == [True, None, True]


def test_the_time_of_mathematics_is_that_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits for others is not one whose expression is too much."""

    def for_ever() -> int:
        while True:
            pass

    monkeypatch.setattr(readers, "MATH_SECONDS", 0.2)
    assert readers._limited(lambda: time.sleep(0.5) or 1) == 1
    assert readers._limited(for_ever) is None
