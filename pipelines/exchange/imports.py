"""Adapters that come from elsewhere: of pyreft, of AdapterHub, or published by this project."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from transformers import PreTrainedTokenizerBase

from pipelines.bases.load import LoadedBase, load_base
from pipelines.bases.store import obtain
from pipelines.contracts.base import BaseRecord, read_base, write_record
from pipelines.errors import PipelineError
from pipelines.files import sha256_file, temporary_directory, write_json
from pipelines.project.lineage import UNKNOWN
from pipelines.sources.addresses import FileSource, HubSource, own_path, parse_source, snapshot
from reft import AdapterInfo, ReftEncoder, ReftModel, save_adapter
from reft.adapters.any_method import MethodModel, load_method, read_info
from reft.adapters.directory import read_outputs
from reft.adapters.files import adapter_names, adapter_sha256
from reft.edits.methods.forms import Activation
from reft.files import put_in_place
from reft.formats.adapterhub import read_adapterhub
from reft.formats.foreign import ForeignAdapter
from reft.formats.pyreft import read_pyreft

log = logging.getLogger(__name__)

Library = Literal["pyreft", "adapterhub", "hub"]
BASE_NAME, IMPORT_NAME = "base.json", "imported.json"
READ_FILES = ("*.json", "*.safetensors", "*.bin")
REFUSED_FILES = ("*.py", "*/*")
REFUSED_PUBLISHED = ("*.py", "*/*/*")  # PEFT's layout is in a folder


@dataclass(frozen=True)
class DeclaredSettings:
    """What the user says of an adapter, where its files do not; None: nothing."""

    positions: str | None = None
    activation: str | None = None
    dropout: float | None = None
    method: str | None = None


@dataclass(frozen=True)
class BaseChoice:
    """The base that an adapter is for: the path of a base.json, or a ``hub:`` or ``file:`` address and a dtype."""

    address: str
    dtype: str = "float32"


@dataclass(frozen=True)
class Imported:
    """An adapter that came in.

    Attributes:
        adapter_sha256: its identity.
        method: a key of :data:`reft.METHODS`, or one of :data:`reft.peers.table.METHODS`.
        layers: how many are edited, or of a rival of ReFT, how many the base has.
        positions: the edited tokens; of a rival of ReFT, all tokens.
        trained: how many numbers it has.
        base: the record of its base.
        notes: what is not as it was stored, or was taken for granted.
    """

    adapter_sha256: str
    method: str
    layers: int
    positions: str
    trained: int
    base: BaseRecord
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """A published adapter, ready for use.

    Attributes:
        model: the base with its edits, in evaluation mode.
        tokenizer: of the base.
        prompt: the form of the prompts that it was trained on; empty if that is not known.
    """

    model: MethodModel
    tokenizer: PreTrainedTokenizerBase
    prompt: dict[str, Any]


def import_adapter(
    source: str, out: Path, *, library: Library, root: Path, declared: DeclaredSettings, base: BaseChoice | None
) -> Imported:
    """Make an adapter of this project from one that was saved elsewhere; nothing in its files is run.

    The new folder also holds base.json, the record of its base, and imported.json: where it comes from and what was
    said of it. It is loaded on its base once before it appears.

    Args:
        source: a folder, or ``hub:NAME@COMMIT``.
        out: a folder that is not there yet.
        library: which one saved it; ``hub`` for what ``reft export --format hub`` wrote.
        root: the project's root, for a ``file:`` base.
        declared: what its files do not say.
        base: the model it is for; None for ``hub``, which names its own.

    Raises:
        PipelineError: for files that cannot be read as such an adapter, something that is said too much or too little,
            a base that is not to be had or does not fit, or an ``out`` that is there.
    """
    _check_free(out)
    with opened(source, root, published=library == "hub") as folder:
        if library == "hub":
            if declared != DeclaredSettings() or base is not None:
                raise PipelineError(
                    "a published adapter says all of itself", got=base or declared, do="Name its place alone."
                )
            return _import_published(folder, out, root)
        if base is None:
            raise PipelineError(
                "the base must be named", do="Give --base: a base.json, or an address like hub:NAME@COMMIT."
            )
        with refusals():
            adapter, granted = _read(folder, library, declared)
        notes = (*granted, *adapter.notes)
        origin = _origin(source, folder, library, declared, notes)
    return _settle(adapter, out, load_base(_base_record(base, root), root=root), origin, notes)


def load_published(source: str, *, root: Path = Path(), device: str = "cpu") -> Published:
    """Load a published adapter and its base, which is fetched if it is not in the store.

    Args:
        source: ``hub:NAME@COMMIT``, or a folder that ``reft export --format hub`` or ``reft import`` wrote.
        root: the project's root, for a ``file:`` base.
        device: of torch.

    Raises:
        PipelineError: for what is none, or a base that is not to be had.
    """
    with opened(source, root, published=True) as folder:
        record = _published_base(folder)
        loaded = load_base(record, device=device, root=root, outputs=outputs_of(folder, record))
        with refusals():
            info = read_info(folder)
            model = load_method(folder, loaded.model, base_sha256=loaded.record.sha256)
        return Published(model.eval(), loaded.tokenizer, info.prompt)


def outputs_of(folder: Path, base: BaseRecord) -> int:
    """How many numbers the head of a published adapter answers with; 0 of a decoder's, which has none."""
    if base.kind == "decoder":
        return 0
    with refusals():
        return read_outputs(folder)


@contextmanager
def opened(source: str, root: Path, *, published: bool = False) -> Iterator[Path]:
    """Yield the folder that ``hub:NAME@COMMIT``, ``file:PATH`` or a path names, if ``published`` with PEFT's in it."""
    if not source.startswith(("hub:", "file:", "pypi:")):
        yield Path(source)
        return
    parsed = parse_source(source)
    if isinstance(parsed, FileSource):
        yield own_path(parsed, root)
    elif isinstance(parsed, HubSource):
        with tempfile.TemporaryDirectory() as scratch:
            refused = REFUSED_PUBLISHED if published else REFUSED_FILES
            yield snapshot(parsed, Path(scratch), wanted=READ_FILES, refused=refused)
    else:
        raise PipelineError("an adapter is in a folder or on a hub", got=source, do="Write a path or hub:NAME@COMMIT.")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what reft refuses into a PipelineError; its words say rule, value and advice already."""
    try:
        yield
    except (ValueError, FileExistsError) as error:
        raise PipelineError(str(error)) from error


def _check_free(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise PipelineError("what is there is not written over", got=out, do="Choose another --out, or remove it.")


def _base_record(choice: BaseChoice, root: Path) -> BaseRecord:
    if choice.address.startswith("pypi:"):
        raise PipelineError("a base from a package is named by its base.json", got=choice.address, do="Give that file.")
    if choice.address.startswith(("hub:", "file:")):
        return obtain(choice.address, None, choice.dtype, root=root)
    return read_base(Path(choice.address))


def _published_base(folder: Path) -> BaseRecord:
    path = folder / BASE_NAME
    if folder.is_symlink() or path.is_symlink() or not path.is_file():
        raise PipelineError(
            f"a published adapter is a folder of plain files with {BASE_NAME}",
            got=folder,
            do="Name a folder that `reft export --format hub` wrote, or a whole copy of one.",
        )
    return read_base(path)


def _import_published(folder: Path, out: Path, root: Path) -> Imported:
    record = _published_base(folder)
    loaded = load_base(record, root=root, outputs=outputs_of(folder, record))
    with temporary_directory(out) as scratch:
        made = scratch / "adapter"
        made.mkdir()
        with refusals():
            names = adapter_names(folder)
        for name in (*names, BASE_NAME):
            file = folder / name
            if file.is_symlink() or file.parent.is_symlink() or not file.is_file():
                raise PipelineError("a published adapter is a folder of plain files", got=f"no {name}, or a link")
            (made / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, made / name)
        imported = _check(made, loaded, ())
        put_in_place(made, out)
    return imported


def _settle(
    adapter: ForeignAdapter, out: Path, loaded: LoadedBase, origin: Mapping[str, object], notes: tuple[str, ...]
) -> Imported:
    """Put the edits on their base and save them, with the base's record and where they come from."""
    record = loaded.record
    with temporary_directory(out) as scratch:
        made = scratch / "adapter"
        with refusals():
            model = ReftModel(loaded.model, adapter.config, seed=0)
            adapter.fill(model)
            info = AdapterInfo(record.sha256, record.source, data_sha256=UNKNOWN, prompt={}, seed=0)
            save_adapter(model, made, info)
        write_record(made / BASE_NAME, record)
        write_json(made / IMPORT_NAME, origin)
        imported = _check(made, loaded, notes)
        put_in_place(made, out)
    return imported


def _read(folder: Path, library: Library, declared: DeclaredSettings) -> tuple[ForeignAdapter, list[str]]:
    """Return the adapter, and what was taken for granted."""
    if library == "adapterhub":
        if (declared.positions, declared.activation, declared.dropout) != (None, None, None):
            got = f"{declared.positions}, {declared.activation}, {declared.dropout}"
            raise ValueError(f"AdapterHub's files say positions, activation and dropout; got {got}; leave them out")
        return read_adapterhub(folder, method=declared.method), []
    if declared.positions is None:
        raise ValueError(
            "pyreft does not store which tokens are edited, so they must be said; got none; "
            "give --positions as in training, like f7+l7"
        )
    granted = []
    if declared.activation is None:
        granted.append("the activation is taken to be linear, as pyreft itself does when it loads")
    if declared.dropout is None:
        granted.append("dropout is taken to be 0, as pyreft itself does when it loads")
    adapter = read_pyreft(
        folder,
        positions=declared.positions,
        activation=cast(Activation, declared.activation or "linear"),  # the config checks it
        dropout=declared.dropout or 0.0,
        method=declared.method,
    )
    return adapter, granted


def _check(folder: Path, loaded: LoadedBase, notes: tuple[str, ...]) -> Imported:
    """Load the adapter as anybody will, and say what it is."""
    with refusals():
        model = load_method(folder, loaded.model, base_sha256=loaded.record.sha256)
    edits = model.config if isinstance(model, ReftModel | ReftEncoder) else None
    return Imported(
        adapter_sha256=adapter_sha256(folder),
        method=model.config.method,
        layers=model.num_layers if edits is None else len(edits.layers),
        positions="all tokens" if edits is None else edits.positions,
        trained=model.num_trainable(),
        base=loaded.record,
        notes=notes,
    )


def _origin(
    source: str, folder: Path, library: Library, declared: DeclaredSettings, notes: tuple[str, ...]
) -> Mapping[str, object]:
    files = sorted(file for pattern in READ_FILES for file in folder.glob(pattern))
    return {
        "format": 1,
        "library": library,
        "source": source if source.startswith("hub:") else folder.name,  # no paths of this machine
        "files": {file.name: sha256_file(file) for file in files if file.is_file() and not file.is_symlink()},
        "said": asdict(declared),
        "notes": list(notes),
    }
