"""Which adapter a name means: the project's own, a version of its registry, or a directory of any known layout."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.contracts.identities import Seen
from pipelines.errors import PipelineError
from pipelines.exchange.imports import BASE_NAME, BaseChoice, DeclaredSettings, import_adapter, opened
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.registry.download import PREFIX, fetch_version, is_version, version_address
from reft.adapters.files import CONFIG_NAME
from reft.formats.files import MAX_JSON_BYTES

FORMS = "a directory, hub:NAME@COMMIT, or a version: 3, @champion, models:/NAME/3, models:/NAME@ALIAS"
NOTHING_SAID = DeclaredSettings()
TRAINER_FOLDER = "intervenable_model"  # of a checkpoint of pyreft's Trainer
Layout = Literal["own", "pyreft", "adapterhub"]


@dataclass(frozen=True)
class Naming:
    """How names are read.

    Attributes:
        root: the project's root.
        download: whether a repository of a hub may be fetched.
        declared: what is said of adapters of other libraries, whose files do not say it.
        base: the base of those; None: the project's.
    """

    root: Path
    download: bool = False
    declared: DeclaredSettings = NOTHING_SAID
    base: BaseChoice | None = None


@dataclass(frozen=True)
class NamedAdapter:
    """What a name stands for.

    Attributes:
        title: the name as people read it; of a version its number, whatever alias named it.
        folder: an adapter directory of this project's layout.
        base: the record of its base, a base.json.
        layout: what it was saved as.
        notes: of another library's: what is not as it was stored, or was taken for granted.
        seen: of a version: what it was made with, where that is known.
    """

    title: str
    folder: Path
    base: Path
    layout: Layout = "own"
    notes: tuple[str, ...] = ()
    seen: Seen | None = None


@contextmanager
def named_adapter(name: str | None, naming: Naming) -> Iterator[NamedAdapter]:
    """Yield the adapter; what had to be fetched or turned into this project's layout is gone after the block.

    Args:
        name: one of :data:`FORMS`; None: the one that the project's stage train left.
        naming: how it is read.

    Raises:
        PipelineError: for a name that means nothing, an adapter that cannot be read, or one whose base is not known.
    """
    root = naming.root
    if name is None:
        adapter, base = _project_file(root, "adapter", "{}"), _project_file(root, "base", "{}")
        yield NamedAdapter("the project's adapter", adapter, base)
    elif is_version(name):
        params = load_params(root / "params.yaml")
        model = params.register_.model
        address = version_address(name, model)
        with tempfile.TemporaryDirectory() as scratch:
            found = fetch_version(address, Path(scratch), params=params, root=root)
            title = _version_title(address, found.number, own=model)
            yield NamedAdapter(title, found.adapter, found.base, seen=found.seen)
    else:
        with _opened(name, naming) as folder:
            yield from _of_folder(name, folder, naming)


def layout_of(folder: Path) -> Layout:
    """Which library's layout a directory has, by the names of its files and the keys of its config.

    Whoever reads it checks it: what is none of the others' is taken for this project's.
    """
    if any(folder.glob("intkey_*.bin")) or any((folder / TRAINER_FOLDER).glob("intkey_*.bin")):
        return "pyreft"
    if "config" in _keys(folder / CONFIG_NAME):
        return "adapterhub"
    return "own"


def _of_folder(name: str, folder: Path, naming: Naming) -> Iterator[NamedAdapter]:
    if not folder.is_dir():
        raise PipelineError(f"an adapter is {FORMS}", got=name, do="Name one of these.")
    title = name if name.startswith(("hub:", "file:")) else folder.name or folder.resolve().name
    layout = layout_of(folder)
    if layout == "own":
        own = folder / BASE_NAME
        base = own if own.is_file() else _project_file(naming.root, "base", f"{BASE_NAME} beside its files, or {{}}")
        yield NamedAdapter(title, folder, base)
        return
    inner = folder / TRAINER_FOLDER
    source = inner if layout == "pyreft" and inner.is_dir() and not any(folder.glob("intkey_*.bin")) else folder
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "adapter"
        choice = naming.base or BaseChoice(str(_project_file(naming.root, "base", "--base, or {}")))
        made = import_adapter(str(source), out, library=layout, root=naming.root, declared=naming.declared, base=choice)
        yield NamedAdapter(f"{title} ({layout})", out, out / BASE_NAME, layout, made.notes)


@contextmanager
def _opened(name: str, naming: Naming) -> Iterator[Path]:
    if name.startswith("hub:") and not naming.download:
        raise PipelineError(
            "a repository of a hub is fetched only where that is asked for", got=name, do="Give --download as well."
        )
    with opened(name, naming.root, published=True) as folder:
        yield folder


def _version_title(address: str, number: int, *, own: str) -> str:
    """The number of a version, and the alias or the model where the name says more."""
    model, _, alias = address.removeprefix(PREFIX).partition("@")
    model = model.partition("/")[0]
    said = f"version {number}" if model == own else f"{model} version {number}"
    return f"{said} (@{alias})" if alias else said


def _keys(config: Path) -> set[str]:
    """The keys of a config; none of what is no JSON object, which whoever reads the adapter will say."""
    try:
        if config.is_symlink() or config.stat().st_size > MAX_JSON_BYTES:
            return set()
        raw = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    return set(raw) if isinstance(raw, dict) else set()


def _project_file(root: Path, name: str, rule: str) -> Path:
    path = root / read_graph(root).paths[name] if (root / "dvc.yaml").is_file() else None
    if path is None or not path.exists():
        missing = f"no {path.relative_to(root)}" if path else "no project"
        raise PipelineError(
            f"an adapter needs {rule.format('the files that `reft run` leaves')}",
            got=f"{missing} in {root}",
            do="Run `reft run` in a project, or name an adapter.",
        )
    return path
