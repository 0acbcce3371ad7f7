"""The section `base` of params.yaml: where the frozen model comes from. For `prepare` see pipelines.tasks.keys."""

from __future__ import annotations

from typing import Literal

from pipelines.tasks.keys.prepare import SourceParams

Kind = Literal["decoder", "encoder"]


class BaseParams(SourceParams):
    kind: Kind
    dtype: Literal["float32", "bfloat16", "float16"]
