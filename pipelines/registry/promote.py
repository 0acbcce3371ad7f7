"""Promotion: the gate is asked, its decision is kept with the version, and the champion's alias moves last.

Asking takes minutes and holds no lock. Deciding and writing hold the store's: there the champion is read again, and if
another one has come meanwhile, the challenger is compared with that one instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pipelines.contracts.identities import NAME
from pipelines.contracts.prepared import data_sha256
from pipelines.contracts.verdict import Decision, Verdict
from pipelines.errors import PipelineError, printable
from pipelines.files import sha256_file, sha256_json
from pipelines.params.whole import Params
from pipelines.registry.aliases import (
    ABSENT,
    CHALLENGER,
    CHAMPION,
    MOVE,
    PREVIOUS,
    WITHDRAWN,
    alias_version,
    crown,
    model_tags,
    number_of,
    settle,
)
from pipelines.registry.gate import Contest, decide
from pipelines.registry.lock import Confirm, registry_lock
from pipelines.registry.looks import look_number, note_look
from pipelines.registry.paired import Drawing
from pipelines.registry.stored import ADAPTER, BASE, holds, model_id
from pipelines.tracking.runs import Store, store_errors
from pipelines.tracking.store import unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
WAIT_SECONDS = 300.0  # for others that write to the registry
ROUNDS = 20  # champions that may come while a challenger is compared with the one before
KEY_DIGITS = 32
LONGEST = 5000  # characters of a tag's value; MLflow refuses more
LONGEST_REASON = 500  # a move that is announced holds one, each character as six in JSON

Ask = Callable[["ModelVersion", "ModelVersion | None"], Contest]
"""Asks a challenger and a champion the test rows."""

Record = Callable[[Decision], None]
"""Keeps a decision where people look for it, before the alias moves."""


@dataclass(frozen=True)
class Request:
    """What is wanted of a promotion.

    Attributes:
        version: the number of the challenger; None: the one with that alias.
        reason: why it is to be promoted whatever the gate says; None: it is not.
        dry: decide, and write nothing to the registry.
        only_ask: decide and keep the decision; a person moves the alias.
    """

    version: int | None = None
    reason: str | None = None
    dry: bool = False
    only_ask: bool = False

    def words(self) -> list[str]:
        """As ``python -m pipelines.registry promote`` takes it."""
        named = {"--version": self.version, "--reason": self.reason}
        flags = {"--dry-run": self.dry, "--only-ask": self.only_ask}
        given = [f"{flag}={value}" for flag, value in named.items() if value is not None]  # a reason may begin with -
        return [*given, *(flag for flag, is_set in flags.items() if is_set)]


@dataclass(frozen=True)
class Rules:
    """What a decision follows from beside the versions: the settings, and the test rows by their hash."""

    params: Params
    data_sha256: str

    @classmethod
    def of(cls, params: Params, prepared: Path) -> Self:
        """The rules of a project with these prepared data."""
        return cls(params, sha256_json([data_sha256(prepared), sha256_file(prepared / NAME)]))

    def drawing(self) -> Drawing:
        """How intervals are drawn."""
        evaluate = self.params.evaluate
        return Drawing(evaluate.confidence, evaluate.bootstrap, self.params.seed)

    def key(self, challenger: ModelVersion, champion: ModelVersion | None) -> str:
        """The hash of all that decides."""
        adapters = [challenger.tags.get(ADAPTER), None if champion is None else champion.tags.get(ADAPTER)]
        evaluate = self.params.evaluate
        settings = [self.params.gate.model_dump(), evaluate.confidence, evaluate.bootstrap, self.params.seed]
        return sha256_json([adapters, self.data_sha256, settings])[:KEY_DIGITS]


def promote(store: Store, rules: Rules, request: Request, *, ask: Ask, record: Record) -> Decision:
    """Ask the gate of a challenger, and move the alias if it says so.

    Raises:
        PipelineError: if there is no challenger, it is the champion already, it does not load, or the store does not
            answer.
        BusyError: if another process holds the registry for too long.
    """
    model = rules.params.register_.model
    if request.reason is not None:
        check_reason(request.reason)
        if not request.reason.strip():
            raise PipelineError("a promotion against the gate needs a reason, which is kept", got=repr(request.reason))
    try:
        return _promote(_Promotion(store, model, rules, request, ask, record))
    except store_errors() as error:
        raise unreachable(store.uri, error, rule="the registry must take what a promotion writes") from error


def check_reason(reason: str) -> None:
    """Refuse a person's reason that no store of any kind would keep as it is.

    Raises:
        PipelineError: if it is too long, or holds bytes that are no text.
    """
    if len(reason) > LONGEST_REASON or printable(reason) != reason:
        raise PipelineError(
            f"a reason is text of at most {LONGEST_REASON} characters, which is kept with the version",
            got=f"{len(reason)}: {reason[:80]}",
            do="Say it in fewer words.",
        )


def end_moves(store: Store, model: str) -> str | None:
    """End what a killed promotion or rollback left; returns what was done, None for nothing."""
    try:
        if MOVE not in model_tags(store.client, model):
            return None
        with registry_lock(store, model, wait_seconds=WAIT_SECONDS) as confirm:
            return settle(store.client, model, confirm)
    except store_errors() as error:
        raise unreachable(store.uri, error) from error


def is_due(store: Store, rules: Rules, version: int, kept: Decision | None, *, automatic: bool) -> bool:
    """Whether a version of the project that was just run has something to ask of the gate.

    It has not where it is no challenger, or the gate has decided of the same comparison, and left the rest to a person
    or said no.
    """
    client, model = store.client, rules.params.register_.model
    try:
        challenger, champion = alias_version(client, model, CHALLENGER), alias_version(client, model, CHAMPION)
    except store_errors() as error:
        raise unreachable(store.uri, error) from error
    if challenger is None or int(challenger.version) != version:
        return False
    if kept is None or kept.dry or kept.key != rules.key(challenger, champion) or not kept.verdict.asked:
        return True
    return kept.verdict.promote and automatic


def broken_champion(store: Store, model: str) -> str | None:
    """What is wrong with the live version, for a person to be told; None where its files are those registered."""
    try:
        champion = alias_version(store.client, model, CHAMPION)
        if champion is None:
            previous = number_of(alias_version(store.client, model, PREVIOUS))
            return None if previous is None else _missing(model, previous)
        if has_files(store, champion):
            return None
    except store_errors() as error:
        raise unreachable(store.uri, error) from error
    return (
        f"the champion, version {champion.version} of {model}, has not the files that were registered, and does not "
        "load; `reft rollback` makes the champion before it live again"
    )


def _missing(model: str, previous: str) -> str:
    return (
        f"{model} has no champion, and had one before: its version, or the alias, was deleted; `reft rollback` makes "
        f"version {previous}, the champion before it, live again"
    )


def has_files(store: Store, version: ModelVersion) -> bool:
    """Whether a version's files are there, and are those that were registered."""
    tags = version.tags
    return ADAPTER in tags and holds(store.client, model_id(version), tags[ADAPTER], tags.get(BASE))


@dataclass(frozen=True)
class _Promotion:
    """One request, with all that it needs."""

    store: Store
    model: str
    rules: Rules
    request: Request
    ask: Ask
    record: Record

    @property
    def client(self) -> MlflowClient:
        """Of the store."""
        return self.store.client


def _promote(own: _Promotion) -> Decision:
    client, model = own.client, own.model
    challenger = _challenger(client, model, own.request.version)
    if not own.request.dry and end_moves(own.store, model) is not None:
        challenger = _challenger(client, model, own.request.version)
    champion = alias_version(client, model, CHAMPION)
    for _ in range(ROUNDS):
        _check(challenger, champion)
        contest = own.ask(challenger, champion)
        if own.request.dry:
            return _decision(own, challenger, champion, contest)
        with registry_lock(own.store, model, wait_seconds=WAIT_SECONDS) as confirm:
            settle(client, model, confirm)
            found = alias_version(client, model, CHAMPION)
            if number_of(found) == number_of(champion):
                challenger = _challenger(client, model, int(challenger.version))  # with what others wrote meanwhile
                return _carry_out(own, _decision(own, challenger, champion, contest), challenger, confirm)
            _refuse_behind_a_rollback(client, model, champion, own.request)
            log.info("version %s became champion meanwhile; the challenger is compared with it", number_of(found))
            champion = found
    raise PipelineError(
        "a challenger must be compared with the champion of the moment",
        got=f"{ROUNDS} others came meanwhile",
        do="Run the command again when they are done.",
    )


def _challenger(client: MlflowClient, model: str, version: int | None) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    if version is not None:
        try:
            return client.get_model_version(model, str(version))
        except MlflowException as error:
            if error.error_code in ABSENT:
                do = "`reft registry` lists its versions."
                raise PipelineError(f"{model} must have the version", got=version, do=do) from None
            raise
    found = alias_version(client, model, CHALLENGER)
    if found is None:
        raise PipelineError(
            f"{model} must have a challenger, the newest version that beats the frozen base",
            got="none: no version beat it, or the one that did is champion",
            do="`reft registry` lists its versions; name one, as in `reft promote 3`.",
        )
    return found


def _refuse_behind_a_rollback(client: MlflowClient, model: str, was: ModelVersion | None, request: Request) -> None:
    """Who went back while the rows were asked wants the version before to be live, and not the next one."""
    if was is None or request.reason is not None:
        return
    now = client.get_model_version(model, was.version).tags.get(WITHDRAWN)
    if now is not None and now != was.tags.get(WITHDRAWN):
        raise PipelineError(
            "no version goes live that was asked before a rollback",
            got=f"version {was.version} was taken out of use meanwhile; {now}",
            do="`reft promote NUMBER` asks the gate again.",
        )


def _check(challenger: ModelVersion, champion: ModelVersion | None) -> None:
    if number_of(challenger) == number_of(champion):
        raise PipelineError("a challenger must not be the champion", got=f"version {challenger.version} is")


def _decision(own: _Promotion, challenger: ModelVersion, champion: ModelVersion | None, contest: Contest) -> Decision:
    """What the gate says of it, at this look."""
    request, rules, now = own.request, own.rules, datetime.now(UTC)
    key = rules.key(challenger, champion)
    look = look_number(model_tags(own.client, own.model), key, now)
    verdict = _not_withdrawn(decide(contest, rules.params.gate, rules.drawing(), look=look), challenger)
    if request.reason is not None and contest.challenger.problem is not None:
        raise PipelineError(
            "only a version that answers the test rows can be promoted, whatever the reason",
            got=contest.challenger.problem,
        )
    promoted = (verdict.promote or request.reason is not None) and not (request.dry or request.only_ask)
    return Decision(
        key=key,
        model=own.model,
        version=int(challenger.version),
        champion=None if champion is None else int(champion.version),
        at=now.isoformat(timespec="seconds"),
        forced=None if verdict.promote else request.reason,
        promoted=promoted,
        dry=request.dry,
        verdict=verdict,
    )


def _not_withdrawn(verdict: Verdict, challenger: ModelVersion) -> Verdict:
    """A version that a person took out of use, by a rollback or a word, does not come back by itself."""
    note = challenger.tags.get(WITHDRAWN)
    if note is None:
        return verdict
    reasons = verdict.reasons if not verdict.promote else ()
    return replace(verdict, promote=False, reasons=(f"a person took it out of use; {note}", *reasons))


def _carry_out(own: _Promotion, decision: Decision, challenger: ModelVersion, confirm: Confirm) -> Decision:
    """Keep the decision, then move the alias; under the lock."""
    client, model, version = own.client, own.model, number_of(challenger)
    assert version is not None
    if decision.promoted and not has_files(own.store, challenger):
        raise PipelineError(
            "a version must have the files that were registered",
            got=f"version {version} has not",
            do="In the project that made it, `reft run` puts its files into the registry again.",
        )
    confirm()
    if decision.verdict.over_champion is not None:
        note_look(client, model, decision.key, datetime.fromisoformat(decision.at))
    for name, value in decision_tags(decision).items():
        client.set_model_version_tag(model, version, name, value)
    own.record(decision)
    if decision.promoted:
        crown(client, model, version, confirm)
    return decision


def decision_tags(decision: Decision) -> dict[str, str]:
    """What a version keeps of the last decision; MLflow's pages show it."""
    verdict = decision.verdict
    tags = {
        "gate.at": decision.at,
        "gate.champion": "none" if decision.champion is None else str(decision.champion),
        "gate.promote": str(verdict.promote).lower(),
        "gate.reasons": "; ".join(verdict.reasons),
        "gate.rows": str(verdict.rows),
        "gate.left_out": str(verdict.left_out),
        "gate.look": str(verdict.look),
        "gate.level": f"{verdict.level:.3g}",
        "gate.forced": decision.forced or "",
        "gate.key": decision.key,
    }
    for name, found in (("champion", verdict.over_champion), ("base", verdict.over_base)):
        tags[f"gate.lead_over_{name}"] = "" if found is None else f"{found.value:.6g}"
        tags[f"gate.p_value_over_{name}"] = "" if found is None else f"{found.p_value:.3g}"
    return {name: value[:LONGEST] for name, value in tags.items()}
