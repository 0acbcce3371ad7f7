"""A registry of folders: adapters of several recipes on one tiny base, as versions, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.bases.load import LoadedBase
from pipelines.contracts.base import BaseRecord, write_record
from pipelines.files import sha256_json
from pipelines.registry.download import VersionFiles
from reft import AdapterInfo, ReftConfig, ReftModel, save_adapter
from tests.tiny import tiny_llama, tiny_tokenizer

PROMPT = {
    "template": "Review: {text}\nSentiment:",
    "chat": False,
    "labels": {"negative": " negative", "positive": " positive"},
}
FILES = {"config.json": "a" * 64}
CONFIGS = (
    ReftConfig((0, 2), "f2+l2", 2, init="paper"),
    ReftConfig((1,), "l1+g4", 4, method="direft", init="paper"),
    ReftConfig((0, 1, 2), "all", 1, method="noreft", init="paper"),
)


def tiny_base() -> LoadedBase:
    """The base, without a store: the same bits every time."""
    tokenizer = tiny_tokenizer()
    model = tiny_llama(vocab=len(tokenizer))
    record = BaseRecord(
        "file:models/own/tiny", None, "float32", sha256_json(FILES), FILES, "llama", 32, 3, len(tokenizer),
        model.num_parameters(),
    )  # fmt: skip
    return LoadedBase(model, tokenizer, record, Path("nowhere"))


class FolderRegistry:
    """Versions from 1, each an adapter of its own.

    Attributes:
        live: alias -> version.
    """

    def __init__(self, root: Path) -> None:
        self.live: dict[str, int] = {}
        self._root = root
        base = tiny_base()
        for number, config in enumerate(CONFIGS, 1):
            self.save(number, ReftModel(base.model, config, seed=number), base.record)

    def save(self, number: int, model: ReftModel, record: BaseRecord) -> None:
        """Write a version."""
        folder = self._root / str(number)
        save_adapter(model, folder / "adapter", AdapterInfo(record.sha256, record.source, None, PROMPT, number))
        write_record(folder / "base.json", record)

    def aliases(self) -> Mapping[str, int]:
        """The version of each alias."""
        return dict(self.live)

    def has(self, version: int) -> bool:
        """Whether there is one."""
        return (self._root / str(version)).is_dir()

    @contextmanager
    def files(self, version: int) -> Iterator[VersionFiles]:
        """Of a version."""
        folder = self._root / str(version)
        yield VersionFiles(folder / "adapter", folder / "base.json", None, {}, None, 1, None)
