"""Every bad input gets one message with the rule, the value and what to do; exit code 2; and nothing is lost."""

from __future__ import annotations

import pytest

from tests.bad_inputs import CASES
from tests.bad_inputs.case import BadInput
from tests.bad_inputs.sound import Sound

pytestmark = pytest.mark.slow

# Each rule is broken once at each change; the other ways to break it are tried by `make test-long`.
FIRST = {case.rule: case for case in reversed(CASES)}
ROWS = [pytest.param(c, marks=() if c is FIRST[c.rule] else pytest.mark.long, id=c.name) for c in CASES]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return Sound(tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_input_is_told_and_nothing_is_lost(case: BadInput, sound: Sound) -> None:
    _, problems = sound.try_case(case, f"case-{CASES.index(case)}")
    assert not problems, "\n".join(problems)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 100


def test_no_password_is_told(sound: Sound) -> None:
    told = [sound.try_case(case, "password")[0] for case in CASES if "password" in case.name]
    assert told
    assert not [answer for answer in told if "hunter2" in answer.printed]
