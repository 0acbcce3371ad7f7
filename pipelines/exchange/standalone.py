"""The README.md beside a loader that stands alone: which base it is for, and how its prompts are made."""

from __future__ import annotations

import json

from pipelines.contracts.base import BaseRecord
from pipelines.markdown import block, code, table, text
from pipelines.sources.addresses import HubSource, parse_source
from reft import AdapterInfo, ReftConfig
from reft.edits.methods.table import DECLARED
from reft.formats.standalone import LOADER, RECORD, TENSORS


def standalone_readme(config: ReftConfig, info: AdapterInfo, base: BaseRecord) -> str:
    """Return the text of README.md."""
    method = DECLARED[config.method]
    use = f"""from load_reft import load

model, tokenizer = load({_arguments(base)})
inputs = tokenizer(["A prompt", "Another one"], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**inputs, do_sample=False)))"""
    layers = ", ".join(map(str, config.layers))
    lines = [
        "# Edits of a frozen language model",
        "",
        f"{text(method.title)}, {code(method.formula)}, at {code(config.positions)} of the layers {layers}. "
        f"`{LOADER}` needs torch and transformers alone and reads `{RECORD}` and `{TENSORS}` beside it; it is short "
        "enough to be read before it is run.",
        "",
        block(use, "python"),
        "",
        f"The edits are of one base, {code(base.source)} in {base.dtype}, whose files have these hashes:",
        "",
        *table(("file", "SHA-256"), [(text(name), f"`{digest}`") for name, digest in sorted(base.files.items())]),
        "",
        "Prompts in training were made like this; the answer follows the last sign of `template`, or of the chat "
        "template where `chat` is true:",
        "",
        block(json.dumps(info.prompt, indent=2, ensure_ascii=False), "json"),
        "",
        "`generate` must keep its cache and read a prompt in one piece, as it does unless told otherwise. In a batch "
        "with padding on either side the same tokens are edited as in a prompt alone.",
        "",
    ]
    return "\n".join(lines)


def _arguments(base: BaseRecord) -> str:
    """What ``load`` is called with for this base, as Python has it."""
    source = parse_source(base.source)
    if isinstance(source, HubSource):
        return f"{json.dumps(source.name)}, revision={json.dumps(source.revision)}"
    return '"path/to/the/base"'
