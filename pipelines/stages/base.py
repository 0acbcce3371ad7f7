"""Stage base: the frozen model is in the store, and models/base.json says what it is."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.base import BaseRecord, write_record
from pipelines.params.whole import Params

if TYPE_CHECKING:  # torch and transformers take seconds to load, and reading a record needs neither
    pass
from pipelines.bases.store import obtain, sound, store_path

log = logging.getLogger(__name__)


def run(params: Params, *, root: Path, out: Path) -> BaseRecord:
    """Stage: make sure that the base is in the store, and write its record.

    Args:
        params: all of params.yaml; the section ``base`` is used.
        root: the project's root.
        out: base.json.

    Raises:
        PipelineError: for a source that cannot be had, or that is not a causal language model.
    """
    section = params.base
    record = obtain(section.source, section.sha256, section.dtype, root=root)
    if not sound(record):
        log.warning("base %s in the store has other bytes than it was written with", record.sha256[:12])
        shutil.rmtree(store_path(record))
        record = obtain(section.source, section.sha256, section.dtype, root=root)
    write_record(out, record)
    return record
