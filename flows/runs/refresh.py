"""New rows, taken in before a run: files that came into a folder of the user's, or a newer commit of a data set.

A folder is put under DVC again, as `reft data add` does it, so its rows have a new hash and are pushed with the rest.
Of a hub: data set the commit in params.yaml is rewritten, and all else there stays.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.runs import dvc
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_text
from pipelines.intake.proposal import apply_changes
from pipelines.params.refresh import check_growing
from pipelines.params.whole import Params
from pipelines.project.graph import Stage
from pipelines.sources.addresses import FileSource, HubSource, own_path, parse_source
from pipelines.sources.newest import at_commit, newest_commit
from pipelines.sources.parts import visible
from pipelines.wording import many
from pipelines.yaml_file import read_yaml

FALSE = ("", "0", "false", "no", "off")
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class News:
    """What there is to take in.

    Attributes:
        source: as params.yaml has it.
        new: files that were not there the last time.
        changed: files that were there with other content.
        commit: the newest one of a hub: data set, where it is another; None: it is not.
        untracked: what is to be put under DVC, relative to the project; None: nothing.
        why_not: why nobody looked; None: somebody did.
    """

    source: str
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    commit: str | None = None
    untracked: str | None = None
    why_not: str | None = None

    @property
    def is_any(self) -> bool:
        """Whether there are new rows."""
        return bool(self.new or self.changed or self.commit)

    def and_late(self, late: News) -> News:
        """It with what came while the run worked."""
        new = dict.fromkeys((*self.new, *late.new))
        changed = dict.fromkeys((*self.changed, *(name for name in late.changed if name not in new)))
        return replace(self, new=tuple(new), changed=tuple(changed), untracked=late.untracked or self.untracked)

    def words(self) -> str:
        """What there is, in one sentence."""
        if self.why_not is not None:
            return f"Nobody looked for new rows: {self.why_not}"
        if self.commit is not None:
            return f"New rows: {self.source} is at commit {self.commit[:12]} now"
        if not self.is_any:
            return f"Nothing new in {self.source}"
        both = (("new", self.new), ("changed", self.changed))
        counted = [f"{many(len(names), 'file')} {what}" for what, names in both if names]
        return f"New rows in {self.source}: {' and '.join(counted)} ({_some((*self.new, *self.changed))})"


def look(root: Path, params: Params) -> News:
    """Look what is new; what a fresh clone lacks is fetched first, so that it is not taken for lost.

    Raises:
        PipelineError: if the source is of a kind that does not grow, splits are of exact sizes, the hub is out of
            reach, or files that were taken in are gone.
    """
    source = check_growing(params.prepare).source
    parsed = parse_source(source)
    if isinstance(parsed, HubSource):
        if os.environ.get("HF_HUB_OFFLINE", "").casefold() not in FALSE:
            return News(source, why_not="HF_HUB_OFFLINE is set")
        commit = newest_commit(parsed, params.refresh.branch)
        return News(source, commit=None if commit == parsed.revision else commit)
    assert isinstance(parsed, FileSource)
    name = parsed.path.rstrip("/")
    if not (root / name).exists() and (root / f"{name}.dvc").is_file():
        dvc.read(root, ["pull", f"{name}.dvc"])
    return _file_news(root, source, own_path(parsed, root), name)


def take_in(root: Path, news: News) -> None:
    """Put new files under DVC, or write the new commit into params.yaml; the lock of the run is the caller's.

    Raises:
        PipelineError: if DVC refuses, or params.yaml would break a rule.
    """
    if news.untracked is not None:
        dvc.read(root, ["add", news.untracked])
    if news.commit is not None:
        address = at_commit(news.source, news.commit)
        write_text(root / "params.yaml", apply_changes(root / "params.yaml", {"prepare": {"source": address}}))


def come_late(root: Path, params: Params, prepare: Stage) -> News:
    """What came after :func:`look` and was read by stage prepare all the same, so that it is to be taken in as well.

    A file that came later still makes that stage stale, and is for the next run.
    """
    news = look(root, params)
    said: Any = json.loads(dvc.read(root, ["status", "--json", prepare.name])) if news.untracked is not None else {}
    return News(news.source) if prepare.name in said else replace(news, commit=None)


def stands_for(root: Path, stage: Stage, prepared: str) -> bool:
    """Whether a stage's outputs are there, and nothing but the prepared rows is another than when it made them."""
    if dvc.lock_entry(root, stage.name) is None:
        return False
    said: Any = json.loads(dvc.read(root, ["status", "--json", stage.name]))
    return bool(said.get(stage.name) == [{"changed deps": {prepared: "modified"}}])


def keep(root: Path, stage: Stage) -> None:
    """Tell DVC that a stage's outputs stand for its inputs as they are now: so `dvc repro` skips it as well."""
    dvc.read(root, ["commit", "--force", stage.name])


def _file_news(root: Path, source: str, path: Path, name: str) -> News:
    note = root / f"{name}.dvc"
    if not note.is_file():
        return News(source, new=tuple(_names(path)), untracked=name)
    said: Any = json.loads(dvc.read(root, ["status", "--json", f"{name}.dvc"]))
    if not said:
        return News(source)
    present = {part: _md5(path / part if path.is_dir() else path) for part in _names(path)}
    known = _known(root, note, name)
    if gone := sorted(known.keys() - present.keys()):
        raise PipelineError(
            "rows that were taken in must not be lost",
            got=f"{_some(gone)}, no longer in {source}",
            do=f"`dvc checkout {name}/{gone[0]}`, or in a fresh clone `dvc pull`, brings one back; if they are to go: "
            f"dvc add {name}",
        )
    new = tuple(part for part in present if part not in known)
    changed = tuple(part for part in present if part in known and known[part] != present[part])
    return News(source, new, changed, untracked=name)


def _known(root: Path, note: Path, name: str) -> dict[str, str]:
    """The md5 of each file of a source as DVC knows it.

    Raises:
        PipelineError: if DVC's list of them cannot be had.
    """
    entry: Any = read_yaml(note)
    try:
        md5 = str(entry["outs"][0]["md5"])
    except (KeyError, IndexError, TypeError):
        do = f"Take the last good one: git checkout HEAD {name}.dvc"
        raise PipelineError("a .dvc file must name a hash", got=f"{name}.dvc", do=do) from None
    if not md5.endswith(".dir"):
        return {Path(name).name: md5}
    cached = dvc.cache_folder(root) / "files" / "md5" / md5[:2] / md5[2:]
    if not cached.is_file():
        raise PipelineError(
            f"what {name} held before must be known, so that no rows are lost",
            got="no list of it in DVC's cache",
            do=f"Run `dvc fetch {name}.dvc`; if there is no copy of it anywhere: dvc add {name}",
        )
    return {str(each["relpath"]): str(each["md5"]) for each in read_json(cached)}


def _names(path: Path) -> list[str]:
    if not path.is_dir():
        return [path.name]
    found = visible(path)
    for part in found:
        if part.is_dir():
            raise PipelineError(
                "a folder of rows must hold files alone", got=f"{path.name}/{part.name}, a folder", do="Take it out."
            )
    return [part.name for part in found]


def _md5(path: Path) -> str:
    """The name that DVC gives a file's content; no defence against anybody."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
