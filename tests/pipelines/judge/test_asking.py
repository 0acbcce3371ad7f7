"""A judge is asked through OpenAI's client: each way in which it may fail is found, counted and bounded."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.judge.asking import GIVE_UP, ask
from pipelines.judge.judgement import Judgement, judgement
from pipelines.judge.kept import Kept
from pipelines.judge.pairs import Pair
from pipelines.judge.planning import KEY, Judge, Limits, outcome, plan, read_prices, sound_address
from pipelines.judge.tally import Tally
from tests.pipelines.judge.stub import (
    GOOD,
    Stub,
    declining,
    first_place,
    garbage,
    longer,
    right,
    serving,
    wrong_in,
)

ROOT = Path(__file__).parents[3]
NO_LIMITS = Limits()


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def judge(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.delenv(KEY, raising=False)
    with serving(stub) as address:
        yield Judge(address, "stub", max_tokens=8, seconds=5.0, attempts=3, parallel=8, pause=0.01)


def pairs(count: int, won: float, *, known: bool = False, start: int = 0) -> list[Pair]:
    """Pairs of which the one is the better in so large a share; by turns the longer and the shorter."""
    made = []
    for place in range(start, start + count):
        one_better = (place - start) < won * count
        texts = [f"{GOOD} {'long ' * 9 * (place % 2)}{place}", f"{'long ' * 9 * ((place + 1) % 2)}{place}"]
        one, other = texts if one_better else texts[::-1]
        better = ("one" if one_better else "other") if known else None
        made.append(Pair(f"r:{place}", f"Say {place}.", one, other, better))  # type: ignore[arg-type]
    return made


def asked(
    judge: Judge, folder: Path, own: list[Pair], known: list[Pair], limits: Limits = NO_LIMITS
) -> tuple[Judgement, Tally]:
    questions = [question for pair in (*known, *own) if not pair.alike for question in pair.questions()]
    with Kept(folder / "verdicts.jsonl").open() as kept:
        tally = ask(plan(questions, judge, kept), judge, limits, kept)
        found = judgement(
            own, known, lambda question: outcome(question, judge, kept), tally, made=False, confidence=0.95
        )
    return found, tally


OWN, KNOWN = pairs(40, 0.75), pairs(40, 0.5, known=True, start=1000)


def test_a_judge_who_errs_not_finds_the_planted_share(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    found, tally = asked(judge, tmp_path, OWN, KNOWN)
    assert found.win_rate is not None
    assert found.win_rate.value == 0.75
    assert found.corrected is not None
    assert found.corrected.low < 0.75 < found.corrected.high
    assert found.findings == ()
    assert (tally.questions, tally.calls, len(stub.asked)) == (160, 160, 160)
    assert tally.read_tokens == 16_000  # as the server counts them


def test_a_second_run_asks_nothing_and_finds_the_same(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    first, _ = asked(judge, tmp_path, OWN, KNOWN)
    second, tally = asked(judge, tmp_path, OWN, KNOWN)
    assert second == first
    assert (tally.known, tally.calls, stub.calls) == (160, 0, 160)
    asked(replace(judge, model="another"), tmp_path, OWN, KNOWN)
    assert stub.calls == 320  # what another judge says is not known


def test_a_judge_who_prefers_the_first_place_is_found(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    stub.say = first_place
    found, _ = asked(judge, tmp_path, OWN, KNOWN)
    assert (found.contradictions, found.first_place) == (80, 80)
    assert any("stands first" in finding for finding in found.findings)
    assert any("does not surely tell better answers from worse" in finding for finding in found.findings)
    assert found.corrected is None
    assert found.win_rate is not None
    assert found.win_rate.value == 0.5  # both orders take the place out of it


def test_a_judge_who_prefers_the_longer_answer_is_found(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    stub.say = longer
    found, _ = asked(judge, tmp_path, OWN, KNOWN)
    assert any("prefers the longer answer" in finding for finding in found.findings)
    assert found.calibration.longer is not None
    assert found.calibration.shorter is not None
    assert (found.calibration.longer.value, found.calibration.shorter.value) == (1.0, 0.0)
    assert found.length_slope is not None
    assert found.length_slope.low > 0


def test_a_judge_who_is_wrong_in_a_fifth_is_found_and_corrected(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    stub.say = wrong_in(0.2)
    found, _ = asked(judge, tmp_path, OWN, KNOWN)
    rates = found.calibration
    assert rates.true_positives is not None
    assert rates.false_positives is not None
    assert rates.true_positives.low < 0.8 < rates.true_positives.high
    assert rates.false_positives.low < 0.2 < rates.false_positives.high
    assert any("It is wrong in" in finding for finding in found.findings)
    assert found.corrected is not None
    assert found.corrected.low < 0.75 < found.corrected.high


@pytest.mark.parametrize(
    ("say", "kind", "words"), [(garbage, "unreadable", "could not be read"), (declining, "refused", "are refusals")]
)
def test_replies_without_a_verdict_are_counted(
    judge: Judge, stub: Stub, tmp_path: Path, say: object, kind: str, words: str
) -> None:
    stub.say = say  # type: ignore[assignment]
    found, _ = asked(judge, tmp_path, OWN[:5], KNOWN[:2])
    assert found.outcomes == {kind: 14}
    assert found.scored == 0
    assert found.win_rate is None
    assert any(f"14 of 14 replies {words}" in finding for finding in found.findings)


def test_replies_that_end_before_the_verdict_and_those_of_a_filter_are_counted(
    judge: Judge, stub: Stub, tmp_path: Path
) -> None:
    stub.say, stub.finish = (lambda *_texts: "Let me think"), "length"
    found, _ = asked(judge, tmp_path / "cut", OWN[:3], [])
    assert found.outcomes == {"cut": 6}
    stub.finish = "content_filter"
    found, _ = asked(judge, tmp_path / "filter", OWN[:3], [])
    assert found.outcomes == {"refused": 6}


def test_a_judge_who_is_slow_is_given_up_and_what_he_said_is_kept(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    asked(judge, tmp_path, OWN[:2], [])
    stub.seconds = 0.3
    slow = replace(judge, seconds=0.05, attempts=2, parallel=2)
    with pytest.raises(
        PipelineError, match=rf"{GIVE_UP} questions in a row came to nothing \(\d+ timeouts\).*longer --timeout"
    ):
        asked(slow, tmp_path, OWN[:12], [])
    stub.seconds = 0.0
    _, tally = asked(judge, tmp_path, OWN[:2], [])
    assert tally.known == 4


def test_a_time_out_now_and_then_is_counted_and_asked_again(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    slept = []

    def slow_once(*texts: str) -> str:
        if not slept:
            slept.append(texts)
            time.sleep(0.4)
        return "A"

    stub.say = slow_once
    found, tally = asked(replace(judge, seconds=0.2), tmp_path, OWN[:4], [])
    assert dict(tally.failures) == {"timeouts": 1}
    assert (tally.unanswered, found.scored) == (0, 4)
    assert any("1 timeouts" in finding for finding in found.findings)


def test_a_judge_who_is_down_is_said_to_be(judge: Judge, tmp_path: Path) -> None:
    down = replace(judge, address="http://127.0.0.1:9/v1", attempts=2)
    with pytest.raises(PipelineError, match=r"must answer.*unreachable.*run the command again when it is up"):
        asked(down, tmp_path, OWN, [])


def test_without_the_client_it_is_said_what_to_install(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PipelineError, match=r"pip install openai"):
        asked(judge, tmp_path, OWN, [])


def test_a_rate_limit_is_waited_for_and_counted(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    stub.limited, stub.broken = 6, 2
    found, tally = asked(replace(judge, attempts=10), tmp_path, OWN[:10], [])
    assert dict(tally.failures) == {"rate_limits": 6, "server_errors": 2}
    assert (found.scored, tally.unanswered) == (10, 0)
    assert any("2 server errors" in finding and "6 rate limits" in finding for finding in found.findings)
    assert tally.calls == stub.calls == 28


def test_a_wrong_key_ends_it_at_the_first_call_and_is_shown_nowhere(
    judge: Judge, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.key = "right"
    monkeypatch.setenv(KEY, "sk-very-secret")
    with pytest.raises(PipelineError, match="must take the key") as raised:
        asked(judge, tmp_path, OWN, [])
    assert "sk-very-secret" not in str(raised.value)
    assert stub.calls == 1
    monkeypatch.setenv(KEY, "right")
    _, tally = asked(judge, tmp_path, OWN, [])
    assert tally.unanswered == 0


def test_no_more_calls_are_made_than_the_bound_and_the_next_run_goes_on(
    judge: Judge, stub: Stub, tmp_path: Path
) -> None:
    found, tally = asked(judge, tmp_path, OWN, [], Limits(calls=30))
    assert stub.calls == tally.calls == 30
    assert tally.unasked == 50
    assert any("50 of 80 questions have no reply" in finding for finding in found.findings)
    found, tally = asked(judge, tmp_path, OWN, [])
    assert (tally.known, tally.calls, found.scored) == (30, 50, 40)


def test_the_cost_stays_within_the_bound_however_long_replies_are(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    stub.counts = False  # so that each call counts as the most that it can be
    dear = replace(judge, prices=(1000.0, 5000.0))
    one = dear.cost(dear.most_tokens(OWN[0].questions()[0]))
    _, tally = asked(dear, tmp_path, OWN, [], Limits(cost=10 * one))
    assert 0 < tally.cost <= 10 * one * (1 + 1e-9)  # ten costs are added one by one
    assert tally.calls < 20
    assert tally.unasked == 80 - tally.calls


def test_the_most_that_a_plan_may_take_holds_for_every_attempt(judge: Judge, tmp_path: Path) -> None:
    dear = replace(judge, prices=(1.0, 2.0))
    question = OWN[0].questions()[0]
    with Kept(tmp_path / "kept").open() as kept:
        planned = plan([question, question], dear, kept)
    assert (planned.questions, len(planned.unknown), planned.calls) == (1, 1, 3 + 2)  # attempts, and what is adapted
    text = sum(len(turn["content"].encode()) for turn in question.messages())
    assert planned.cost == pytest.approx(3 * ((text + 64) * 1 + 8 * 2) / 1e6)
    assert planned.likely_cost < planned.cost


@pytest.mark.parametrize("knows", [("max_tokens", "temperature"), ("max_completion_tokens",), ("max_tokens",), ()])
def test_settings_that_a_server_does_not_know_are_left_out(
    judge: Judge, stub: Stub, tmp_path: Path, knows: tuple[str, ...]
) -> None:
    stub.knows = knows
    if not knows:  # it has no bound on a reply, so the cost is not bounded either
        with pytest.raises(PipelineError, match=r"came to nothing.*Unsupported parameter: 'max_tokens'"):
            asked(judge, tmp_path, OWN, [])
        return
    found, tally = asked(judge, tmp_path, OWN[:6], [])
    assert found.scored == 6
    assert not tally.failures
    assert tally.calls == stub.calls == 12 + len({"max_completion_tokens", "temperature"} - {*knows})
    warm = "temperature" not in knows
    assert any("does not take temperature" in finding for finding in found.findings) == warm


def test_a_question_that_the_server_never_takes_is_asked_once_and_said(
    judge: Judge, stub: Stub, tmp_path: Path
) -> None:
    """Three of 21 pairs are too long for it, in both orders: later runs ask none of them, and end with a report."""
    long = [Pair(f"l:{n}", f"Say {n}.", "x" * 5000, f"{n}") for n in range(3)]
    stub.longest = 4000
    found, tally = asked(judge, tmp_path, [*long, *OWN[:18]], [])
    assert (tally.calls, dict(tally.failures), tally.unanswered) == (42, {"rejected": 6}, 0)
    assert (found.outcomes["rejected"], found.scored) == (6, 18)
    assert any("6 of 42 replies were rejected by its server" in finding for finding in found.findings)
    again, tally = asked(judge, tmp_path, [*long, *OWN[:18]], [])
    assert (tally.calls, again.outcomes) == (0, found.outcomes)
    _, tally = asked(replace(judge, max_tokens=4), tmp_path, [*long, *OWN[:18]], [])
    assert (tally.calls, tally.unanswered) == (6, 6)  # a lower bound may make room, and there is no error if not


def test_a_server_that_takes_no_question_at_all_ends_it_and_nothing_is_kept(
    judge: Judge, stub: Stub, tmp_path: Path
) -> None:
    stub.longest = 10
    with pytest.raises(PipelineError, match=r"came to nothing \(\d+ rejected\).*context length is exceeded"):
        asked(judge, tmp_path, OWN, [])
    stub.longest = None
    _, tally = asked(judge, tmp_path, OWN, [])
    assert (tally.known, tally.unanswered) == (0, 0)


def test_with_a_larger_bound_on_replies_those_that_were_cut_are_asked_again_alone(
    judge: Judge, stub: Stub, tmp_path: Path
) -> None:
    asked(judge, tmp_path, OWN[:3], [])
    stub.say, stub.finish = (lambda *_texts: "Let me think"), "length"
    found, _ = asked(judge, tmp_path, OWN[:5], [])
    assert found.outcomes["cut"] == 4
    _, tally = asked(replace(judge, max_tokens=4), tmp_path, OWN[:5], [])
    assert tally.calls == 0
    stub.say, stub.finish, calls = right, "stop", stub.calls
    found, tally = asked(replace(judge, max_tokens=16), tmp_path, OWN[:5], [])
    assert (tally.calls, stub.calls - calls, found.scored) == (4, 4, 5)


def test_a_call_with_fewer_settings_is_within_the_bound_too(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    """A server that knows max_tokens alone takes three calls to the first reply."""
    stub.knows = ("max_tokens",)
    _, tally = asked(judge, tmp_path, OWN[:2], [], Limits(calls=1))
    assert (stub.calls, tally.calls, tally.unasked) == (1, 1, 4)
    _, tally = asked(judge, tmp_path, OWN[:2], [], Limits(calls=3))
    assert (stub.calls, tally.calls, tally.unasked) == (4, 3, 3)


@pytest.mark.parametrize(
    "replaces",
    [
        {"usage": {}}, {"usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}},
        {"usage": "many"}, {"usage": {"prompt_tokens": -5, "completion_tokens": 1}},
    ],
)  # fmt: skip
def test_tokens_that_are_not_counted_are_the_most_that_they_can_be(
    judge: Judge, stub: Stub, tmp_path: Path, replaces: dict[str, object]
) -> None:
    stub.replaces = replaces
    found, tally = asked(judge, tmp_path, OWN[:3], [])
    assert found.scored == 3
    assert tally.written_tokens == 6 * judge.max_tokens


@pytest.mark.parametrize(
    "choices",
    [
        [{}], [None], [{"message": None, "finish_reason": "stop"}], [{"message": {"content": ["A"]}}],
        [{"message": "A"}], [{"message": {"content": 1}, "finish_reason": 2}],
    ],
)  # fmt: skip
def test_a_reply_of_another_shape_is_one_that_cannot_be_read(
    judge: Judge, stub: Stub, tmp_path: Path, choices: list[object]
) -> None:
    stub.replaces = {"choices": choices}
    found, tally = asked(judge, tmp_path, OWN[:3], [])
    assert found.outcomes == {"unreadable": 6}
    assert (tally.calls, dict(tally.failures)) == (6, {})


def test_the_same_answer_twice_is_a_tie_that_nobody_is_asked(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    found, _ = asked(judge, tmp_path, [Pair("r:1", "Say it.", "Yes. ", "Yes.")], [])
    assert (stub.calls, found.alike, found.scored) == (0, 1, 1)
    assert found.win_rate is not None
    assert found.win_rate.value == 0.5


def test_a_judge_who_errs_has_not_erred_on_the_same_answer_twice(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    stub.say = wrong_in(0.2)
    alike = [Pair(f"r:{n}", f"Say {n}.", f"{n}", f"{n}") for n in range(40)]
    found, _ = asked(judge, tmp_path, alike, KNOWN)
    assert found.corrected is not None
    assert found.corrected.value == 0.5
    assert found.corrected == found.win_rate
    same, _ = asked(judge, tmp_path, OWN, KNOWN)
    half, _ = asked(judge, tmp_path, [*OWN, *alike], [*KNOWN, Pair("k:1", "Say it.", "Yes.", "Yes.", "one")])
    assert same.corrected is not None
    assert half.corrected is not None
    assert half.corrected.value == pytest.approx(same.corrected.value / 2 + 1 / 4)
    assert half.calibration.true_positives == same.calibration.true_positives


@pytest.mark.long
def test_of_100_runs_with_a_judge_who_errs_93_hold_the_planted_share(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    """All of it through the client; test_rates.py has more truths and sizes, without one."""
    stub.say, within = wrong_in(0.2), 0
    for run in range(100):
        own, known = pairs(40, 0.7, start=10_000 * run), pairs(30, 0.5, known=True, start=10_000 * run + 5_000)
        found, _ = asked(judge, tmp_path / str(run), own, known)
        within += found.corrected is not None and found.corrected.low <= 0.7 <= found.corrected.high
    assert within >= 93


@pytest.mark.long
def test_a_killed_run_loses_no_reply(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    """kill -9 in the middle: the next run asks what the server had not answered, and at most what was under way."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from pipelines.judge.asking import ask
        from pipelines.judge.kept import Kept
        from pipelines.judge.planning import Judge, Limits, plan
        from tests.pipelines.judge.test_asking import OWN
        judge = Judge(sys.argv[1], "stub", max_tokens=8, seconds=5.0, attempts=3, parallel=2, pause=0.01)
        questions = [question for pair in OWN for question in pair.questions()]
        with Kept(Path(sys.argv[2]) / "verdicts.jsonl").open() as kept:
            ask(plan(questions, judge, kept), judge, Limits(), kept)
    """)
    stub.seconds = 0.02
    running = subprocess.Popen([sys.executable, "-c", script, judge.address, str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(stub.asked) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    running.kill()
    running.wait()
    time.sleep(0.1)
    answered = len(stub.asked)
    assert 20 <= answered < 80
    stub.seconds = 0.0
    _, tally = asked(replace(judge, parallel=2), tmp_path, OWN, [])
    assert answered - 2 <= tally.known <= answered
    assert tally.known + tally.calls == 80


def test_a_torn_last_line_is_asked_again_and_spoils_no_other(judge: Judge, stub: Stub, tmp_path: Path) -> None:
    asked(judge, tmp_path, OWN[:3], [])
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    for known in (5, 6):
        _, tally = asked(judge, tmp_path, OWN[:3], [])
        assert tally.known == known


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    with Kept(tmp_path / "kept.jsonl").open() as kept:
        threads = [
            threading.Thread(target=lambda name=name: [kept.add(f"{name}-{n}", {"text": "x" * 999}) for n in range(50)])  # type: ignore[misc]
            for name in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Kept(tmp_path / "kept.jsonl").open() as again:
        assert all(again.get(f"{name}-{n}") == {"text": "x" * 999} for name in range(8) for n in range(50))


@pytest.mark.parametrize(
    ("address", "key", "rule"),
    [
        (None, None, "has an http:// or https:// address"),
        ("ftp://a/v1", None, "has an http:// or https:// address"),
        ("http://[::1/v1", None, "has an http:// or https:// address"),
        ("https://me:pass@a/v1", None, "holds no secret"),
        ("https://a/v1?api_key=SECRET", None, "holds no secret"),
        ("https://a/v1?SECRET", None, "holds no secret"),
        ("https://a/v1#SECRET", None, "holds no secret"),
        ("http://judge.example/v1", "sk", "sent over https"),
        ("http://8.8.8.8/v1", "sk", "sent over https"),
    ],
)
def test_an_address_that_must_not_be_asked_is_refused(
    address: str | None, key: str | None, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    if key:
        monkeypatch.setenv(KEY, key)
    with pytest.raises(PipelineError, match=rule) as raised:
        sound_address(address)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    "address", ["https://a.example/v1", "http://127.0.0.1:80/v1", "http://10.0.0.3:8000/v1", "http://localhost/v1"]
)
def test_an_address_that_may_get_a_key_is_taken(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk")
    assert sound_address(address) == address


def test_prices_are_two_numbers() -> None:
    assert read_prices("0.25,2") == (0.25, 2.0)
    for text in ("1", "1,-2", "1,nan", "1,inf", "a,b", "1,2,3"):
        with pytest.raises(PipelineError, match="two numbers"):
            read_prices(text)
