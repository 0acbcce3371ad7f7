"""reports/gate.md: a decision of the gate as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.contracts.verdict import Decision, Lead, Verdict
from pipelines.markdown import code, table, text
from pipelines.registry.gate import WORDS
from pipelines.wording import many, measure_words, points


def headline(decision: Decision) -> str:
    """What came of it, in one sentence."""
    version = f"version {decision.version} of {decision.model}"
    if decision.promoted:
        old = "there was none" if decision.champion is None else f"before it was version {decision.champion}"
        forced = f", by a person: {decision.forced}" if decision.forced is not None else ""
        return f"{version} is champion now; {old}{forced}"
    if decision.verdict.promote:
        how = "this was a dry run" if decision.dry else "a person promotes it, with `reft promote`"
        return f"{version} passes the gate; {how}"
    stays = "there is no champion" if decision.champion is None else f"version {decision.champion} stays champion"
    return f"{version} is not promoted; {stays}"


def decision_page(decision: Decision) -> str:
    """All of it, in Markdown."""
    verdict = decision.verdict
    lines = [f"# Gate: {text(headline(decision))}", "", f"Decided {text(decision.at)}, on {_rows(verdict)}.", ""]
    lines += [f"- {text(reason)}" for reason in verdict.reasons]
    if verdict.values:
        lines += ["", *_leads(decision)]
    if verdict.slices:
        found = verdict.slices.items()
        rows = [[text(name), f"{one.rows:,}", points(one.value), f"{one.p_value:.2g}"] for name, one in found]
        lines += ["", "## Labels and slices", "", "The challenger's lead over the champion; p is that of a loss.", ""]
        lines += table(["label", "rows", "lead", "p"], rows, right=(1, 2, 3))
    if verdict.figures:
        limits = [[text(WORDS[name]), *map(_figure, (one.challenger, one.champion, one.limit))]
                  for name, one in verdict.figures.items()]  # fmt: skip
        lines += ["", "## Limits", "", *table(["figure", "challenger", "champion", "limit"], limits, right=(1, 2, 3))]
    return "\n".join([*lines, "", f"Made from {code(decision.key)}.", ""])


def _rows(verdict: Verdict) -> str:
    units = "" if verdict.units == verdict.rows else f" in {many(verdict.units, 'group')}"
    left = f"; {many(verdict.left_out, 'row')} left out, which a version was made with" if verdict.left_out else ""
    return f"{many(verdict.rows, 'test row')}{units}{left}"


def _leads(decision: Decision) -> Iterator[str]:
    verdict = decision.verdict
    leads = {"champion": verdict.over_champion, "base": verdict.over_base}
    rows = [[name, f"{100 * value:.1f}", *_lead(leads.get(name))] for name, value in verdict.values.items()]
    header = ["system", f"{text(measure_words(verdict.measure))}, %", "the challenger leads by", "p"]
    yield from table(header, rows, right=(1, 2, 3))
    if verdict.over_majority is not None:
        yield from ("", f"Over always giving the commonest answer: {', p = '.join(_lead(verdict.over_majority))}.")
    if verdict.over_champion is not None:
        yield ""
        yield (
            f"Look {verdict.look} of the year: p must be below {verdict.level:.2g}. The least true lead that such rows "
            f"show here: {'not known' if verdict.detectable is None else points(verdict.detectable, sign=False)}."
        )


def _lead(found: Lead | None) -> list[str]:
    if found is None:
        return ["", ""]
    return [f"{points(found.value)} [{points(found.low)}, {points(found.high)}]", f"{found.p_value:.2g}"]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
