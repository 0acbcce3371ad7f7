"""``reft data add``: a file or model of the user's own, copied in, put under DVC, and written into params.yaml."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flows.runs import dvc
from pipelines.contracts.prepared import Split
from pipelines.errors import PipelineError, printable
from pipelines.files import read_json, require_space, temporary_directory, write_text
from pipelines.intake.layout import is_sample
from pipelines.intake.proposal import Changes, Example, Proposal, apply_changes, first_part, propose
from pipelines.params.whole import Params, load_params
from pipelines.roundtrip import load_document, section_text
from pipelines.runtime.process import locked
from pipelines.sources.addresses import HUB_MODEL_FILES, HUB_REFUSED_FILES, check_plain
from pipelines.sources.parts import parts_of, visible
from pipelines.sources.raw_row import format_of
from reft.files import put_in_place

PREVIEW_ROWS = 5
CELL = 60  # characters of a cell in the preview
PROMPT = 600  # characters of the prompt that is shown
ANSWERS = 12  # answers that are shown
_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Addition:
    """A file or folder that is to be the project's own.

    Attributes:
        path: where it is now.
        own: where it goes, relative to the project.
        changes: what params.yaml would say, or None if it reads that very file already or is not to be changed.
        proposal: of a data file.
        linked: where it really is, if the path is a link.
    """

    path: Path
    own: str
    changes: Changes | None
    proposal: Proposal | None = None
    linked: Path | None = None


def inspect_file(root: Path, path: Path, *, name: str | None, split: Split, alone: bool = False) -> Addition:
    """Find out what a file or folder is, and what params.yaml would say; writes nothing.

    Args:
        root: the project.
        path: a data file, a folder of data files of one format, a GGUF file, or a folder with a transformers model.
        name: what it is to be called; its own name if None.
        split: what a data file is for.
        alone: whether it is taken in without a proposal for params.yaml.

    Raises:
        PipelineError: if it is missing, unreadable, no plain file or folder, or a link that leaves its folder; if the
            name cannot be used; or if nothing can be proposed for it.
    """
    dvc.check_project(root)
    params = load_params(root / "params.yaml")
    linked = _linked(path)
    name = name or path.resolve().name
    if not _NAME.fullmatch(name) or name == "README.md" or name.endswith(".dvc"):
        raise PipelineError("a name is letters, digits, . _ + and -", got=name, do="Give another with --name.")
    try:
        if (path.is_dir() and not _holds_rows(path)) or (path.is_file() and _is_gguf(path)):
            return replace(_inspect_model(path, f"models/own/{name}", params, alone=alone), linked=linked)
    except OSError as error:
        do = "Mend its permissions, or add a copy of it."
        raise PipelineError("the file to add must be readable", got=error, do=do) from None
    own = f"data/own/{name}"
    source = f"file:{own}"
    if alone or source == _present_source(params, split):
        return Addition(path, own, None, linked=linked)
    proposal = propose(path, source, split, params)
    apply_changes(
        root / "params.yaml", proposal.changes
    )  # what would break a rule there is refused before it is copied
    return Addition(path, own, proposal.changes, proposal, linked)


def _linked(path: Path) -> Path | None:
    """Where a path leads that is a link.

    Raises:
        PipelineError: if there is nothing, or what is no plain file or folder, or the link leaves its folder: what a
            stranger's archive links to is not what is seen in it, and DVC's cache would have a copy for the next push.
    """
    try:
        target = path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise PipelineError("the file to add must exist", got=path, do="Check the path.") from None
    except (OSError, RuntimeError) as error:  # no permission; links in a circle
        raise PipelineError("the file to add must be readable", got=error, do="Mend it, or add a copy of it.") from None
    if path.is_symlink() and not target.is_relative_to(path.absolute().parent.resolve()):
        raise PipelineError(
            "a link may lead to what stands in its own folder alone",
            got=f"{path}, a link to {target}",
            do="Add what it leads to by its own path, if that is meant; of a folder of such links, as a hub's cache is,"
            " a copy without them (cp -rL), or name the model as hub:NAME@COMMIT in base.source.",
        )
    check_plain(path)
    return target if path.is_symlink() else None


def check_certain(proposal: Proposal) -> None:
    """Refuse to write a proposal unseen that a person should look at.

    Raises:
        PipelineError: if there is a doubt.
    """
    if proposal.doubts:
        raise PipelineError(
            "--yes writes what is beyond doubt, and this is not",
            got="; ".join(proposal.doubts),
            do="Look at the proposal above, and run the same command without --yes in a terminal, or with --no-params "
            "and write prepare in params.yaml yourself.",
        )


def take_in(root: Path, addition: Addition, *, force: bool) -> None:
    """Copy it in, whole or not at all, and put it under DVC; not while a run works here, whose input it may be.

    What is refused at the end leaves nothing behind: what stood in its place is there again, and DVC's cache is as it
    was.

    Raises:
        PipelineError: if a run works here, other content has that name and ``force`` is not given, or DVC refuses it.
    """
    path, target = addition.path.resolve(), root.resolve() / addition.own
    with locked(root, "run", wait_seconds=0):
        if path == target or _same(path, target):
            with _dvc_as_before(root, target):
                dvc.read(root, ["add", addition.own])
            return
        if (target.exists() or target.is_symlink()) and not force:
            raise PipelineError(
                "other content with the same name must not be lost",
                got=addition.own,
                do="Give another --name, or --force to replace it.",
            )
        with _placed(path, target), _dvc_as_before(root, target):
            dvc.read(root, ["add", addition.own])


@contextmanager
def _dvc_as_before(root: Path, target: Path) -> Iterator[None]:
    """If the block fails, what DVC wrote of the target is gone: its note, its line in git's list, its cached content.

    What another process of DVC puts into the cache meanwhile stays. Where DVC made the target a link into the cache
    (`cache.type`), it is a file again.
    """
    notes = [target.with_name(f"{target.name}.dvc"), target.with_name(".gitignore")]
    before = {note: note.read_bytes() if note.is_file() else None for note in notes}
    cache = dvc.cache_folder(root) / "files"
    cached = set(cache.rglob("*"))
    try:
        yield
    except BaseException:
        for note, text in before.items():
            if text is None:
                note.unlink(missing_ok=True)
            elif not note.is_file() or note.read_bytes() != text:
                note.write_bytes(text)
        new = _objects(target, set(cache.rglob("*")) - cached)
        _unlink_from(target, new)
        for content in new:
            content.unlink()
        raise


def _objects(target: Path, found: set[Path]) -> list[Path]:
    """Those files of DVC's cache that are the content of a file, or of a folder's files, or the list of these."""
    own = {_md5(path) for path in _files_of(target)}
    return [path for path in found if path.is_file() and _content(path) <= own]


def _unlink_from(target: Path, objects: Iterable[Path]) -> None:
    """Make those of the target's files that are links to one of these objects files by themselves."""
    places = {path.resolve() for path in objects}
    for link in _files_of(target):
        if link.is_symlink() and link.resolve() in places:
            with temporary_directory(link) as folder:
                shutil.copyfile(link, folder / link.name)
                put_in_place(folder / link.name, link)


def _files_of(target: Path) -> list[Path]:
    return [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]


def _md5(path: Path) -> str:
    """The name that DVC gives a file's content; no defence against anybody."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _content(cached: Path) -> set[str]:
    """The md5 of what an object of DVC's cache is, which is its name; of a folder's list, of all that is listed."""
    if cached.suffix != ".dir":
        return {cached.parent.name + cached.name}
    return {entry["md5"] for entry in read_json(cached)}


def changed_params(root: Path, changes: Changes) -> tuple[str, str]:
    """Return params.yaml with the changes, and the sections of it that they concern."""
    text = apply_changes(root / "params.yaml", changes)
    document = load_document(text)
    return text, "\n".join(section_text(document, section) for section in changes)


def write_params(root: Path, text: str) -> None:
    """Replace params.yaml, whole or not at all.

    Raises:
        PipelineError: if a run works here: its later stages would read other parameters than its first.
    """
    with locked(root, "run", wait_seconds=0):
        write_text(root / "params.yaml", text)


def preview(proposal: Proposal, name: str) -> Table:
    """The first rows, as they will be read."""
    rows = [row for row in islice(proposal.rows, PREVIEW_ROWS) if row.problem is None]
    table = Table(title=f"{name}: {proposal.layout.format}, first rows", title_justify="left", show_lines=True)
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    for column in columns:
        table.add_column(Text(printable(column)))
    for row in rows:
        table.add_row(*(_cell(row.values.get(column)) for column in columns))
    return table


def question(proposal: Proposal) -> str:
    """The prompt of one row with its answers, what is lost, and what is in doubt."""
    example, usable, read = proposal.example, proposal.usable, len(proposal.rows)
    lines = [
        "The model would read",
        *(f"  | {line}" for line in _cut(example.prompt).split("\n")),
        _answers(example),
        f"Of {read} rows{' looked at' if is_sample(proposal.rows) else ''}, {usable.rows} are usable"
        + "".join(f"; {count} {reason}" for reason, count in usable.lost.items()),
        *(f"In doubt: {doubt}" for doubt in proposal.doubts),
    ]
    return printable("\n".join(lines))


def _answers(example: Example) -> str:
    if not example.words:
        return f"and learn to answer {_cut(example.right)!r}"
    answers = ", ".join(f"{word!r}{' (right)' if word == example.right else ''}" for word in _shown(example))
    more = len(example.words) - len(_shown(example))
    return f"and answer with one of {len(example.words)}: {answers}" + (f" and {more} more" if more else "")


def _shown(example: Example) -> list[str]:
    """The first words, and the right one."""
    first = list(example.words[:ANSWERS])
    return first if example.right in first else [*first, example.right]


def _cut(prompt: str) -> str:
    return prompt if len(prompt) <= PROMPT else f"{prompt[: PROMPT // 2]} … {prompt[-PROMPT // 2 :]}"


def _inspect_model(path: Path, own: str, params: Params, *, alone: bool) -> Addition:
    if path.is_dir() and not ((path / "config.json").is_file() and any(path.glob("*.safetensors"))):
        raise PipelineError(
            "a folder to add is a transformers model: config.json, tokenizer, safetensors",
            got=f"{path} with {', '.join(sorted(p.name for p in path.iterdir())[:5]) or 'nothing'}",
            do="Name such a folder, a folder of data files of one format, or one data file.",
        )
    if path.is_dir():
        _model_files(path)  # which refuses links that leave it
    changes = {"base": {"source": f"file:{own}", "sha256": None}}
    return Addition(path, own, None if alone or params.base.source == f"file:{own}" else changes)


def _present_source(params: Params, split: Split) -> str | None:
    section = params.one_task("reft data add")
    return {"train": section.source, "validation": section.validation_source, "test": section.test_source}[split]


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _holds_rows(folder: Path) -> bool:
    """Whether a folder holds files alone, data files among them, and no model, whose config.json is none of rows."""
    found = visible(folder)
    names = [path.name for path in found if not path.is_dir()]
    return len(names) == len(found) and "config.json" not in names and any(map(format_of, names))


def _files(folder: Path) -> list[Path]:
    """What of a folder is taken: all of its files of rows, or what a model is made of."""
    if not _holds_rows(folder):
        return _model_files(folder)
    for path in visible(folder):
        _linked(path)
    kind = format_of(first_part(folder).name)
    assert kind is not None
    return parts_of(folder, kind)


def _model_files(folder: Path) -> list[Path]:
    """What of a model folder is taken: no pickles, no code, nothing in folders; as from a hub."""
    names = sorted(path for path in folder.iterdir() if path.is_file())
    for path in names:
        _linked(path)
    wanted = [path for path in names if any(fnmatch(path.name, pattern) for pattern in HUB_MODEL_FILES)]
    return [path for path in wanted if not any(fnmatch(path.name, pattern) for pattern in HUB_REFUSED_FILES)]


def _same(path: Path, target: Path) -> bool:
    if target.is_symlink():
        return False
    if path.is_file():
        return target.is_file() and filecmp.cmp(path, target, shallow=False)
    if not target.is_dir():
        return False
    names = [file.name for file in _files(path)]
    return names == sorted(p.name for p in target.iterdir()) and all(
        filecmp.cmp(path / name, target / name, shallow=False) for name in names
    )


@contextmanager
def _placed(path: Path, target: Path) -> Iterator[None]:
    """Have a copy in its place; if the block fails, what was there before is there again."""
    files = [path] if path.is_file() else _files(path)
    require_space(target.parent, 2 * sum(file.stat().st_size for file in files))  # here, and in DVC's cache
    with temporary_directory(target) as folder:
        new = folder / target.name
        if path.is_file():
            shutil.copyfile(path, new)
        else:
            new.mkdir()
            for file in files:
                shutil.copyfile(file, new / file.name)
        old = folder / "old"
        try:
            if new.is_file():
                with suppress(OSError):  # a link, so that there is a file in its place at any moment; a folder has none
                    os.link(target, old, follow_symlinks=False)
            if not os.path.lexists(old) and os.path.lexists(target):
                target.rename(old)
            put_in_place(new, target)
            yield
        except BaseException:  # Ctrl-C too, between the two renames: what was there is in a folder that goes
            if not os.path.lexists(new) and os.path.lexists(target):
                target.rename(folder / "refused")
            if os.path.lexists(old):
                put_in_place(old, target)
            raise


def _cell(value: object) -> Text:
    text = printable(" ".join(str("" if value is None else value).split()))
    return Text(text if len(text) <= CELL else text[: CELL - 1] + "…")  # not markup, whatever brackets it has
