"""Stage base: the frozen model is in the store, and models/base.json says what it is."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from pipelines.bases.load import load_tokenizer
from pipelines.bases.store import obtain, sound, store_path
from pipelines.bases.tokens import check_tokens
from pipelines.contracts.base import BaseRecord, write_record
from pipelines.params.whole import Params

log = logging.getLogger(__name__)


def run(params: Params, *, root: Path, out: Path) -> BaseRecord:
    """Stage: make sure that the base is in the store, and write its record.

    Args:
        params: all of params.yaml; the section ``base`` is used.
        root: the project's root.
        out: base.json.

    Raises:
        PipelineError: for a source that cannot be had, that is no model of the kind, or whose tokenizer has
            tokens that the model cannot read.
    """
    section = params.base
    record = obtain(section.source, section.sha256, section.dtype, section.kind, root=root)
    if not sound(record):
        log.warning("base %s in the store has other bytes than it was written with", record.sha256[:12])
        shutil.rmtree(store_path(record))
        record = obtain(section.source, section.sha256, section.dtype, section.kind, root=root)
    check_tokens(load_tokenizer(record, root=root), record.vocab_size)
    write_record(out, record)
    return record
