"""A stranger's model, tried in a child with limits before this process opens it.

A configuration may describe ten million layers, a chat template may loop for ever, a tokenizer may be a program of
regular expressions. None of them is code that is run by name, and each can take a machine.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pipelines import limited
from pipelines.errors import PipelineError
from pipelines.limited import Limits
from pipelines.params.base import Kind
from reft.files import put_in_place

MOST_LAYERS = 1000  # the deepest language model that is known has 126
MOST_HEADER = 100_000_000  # bytes of a safetensors header, as the library has it
SLACK = 1 << 24  # weights that may be missing, for which there is memory anywhere
LONGEST_PROMPT = 1_000_000  # characters that a chat template may make of a short turn
OPENED_BY: Mapping[Kind, Any] = {"decoder": AutoModelForCausalLM, "encoder": AutoModel}
LIMITS = Limits(
    memory=3 << 30,
    cpu_seconds=300,
    answer_seconds=300,
    # Beside this module, what transformers imports when a model of whatever kind is opened: seconds, for each child.
    imports=(
        "pipelines.bases.foreign",
        "transformers.utils.type_validators",
        "transformers.models.llama.modeling_llama",
    ),
    do="Is its config.json, tokenizer or chat template what its author wrote? Get a whole copy, or another model.",
)


def begin() -> None:
    """Begin to import what :func:`try_foreign` needs; it goes on beside what follows."""
    limited.begin(LIMITS)


def try_foreign(place: Path, tokenizer: Path, kind: Kind) -> tuple[str, ...]:
    """Try configuration, tokenizer and chat template of a folder or a GGUF file.

    Args:
        place: the folder or file.
        tokenizer: a folder to be made, for the tokenizer as this project keeps it: a GGUF file's takes seconds to read,
            and need not be read twice. It is not made where the tokenizer cannot be read.
        kind: as what it is to be opened.

    Returns:
        What else went wrong, a line for each part: of most of it, whoever opens the model says more.

    Raises:
        PipelineError: if the limits do not suffice, the model is deeper than any, its weights are not all there, or its
            chat template makes a book of a word.
    """
    what = "a base's config, tokenizer and chat template"
    told = limited.answers(tried, (str(place), str(tokenizer), kind), LIMITS, what=what)
    return tuple(problem.decode() for problem in told if problem)


def tried(place: str, out: str, kind: Kind) -> Iterator[bytes]:
    """Do what opening the model does, but for its weights; yield what went wrong with each part, b"" for nothing."""
    path = Path(place)
    folder, gguf = (path.parent, path.name) if path.is_file() else (path, None)
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    opened: Any = {"gguf_file": gguf, "local_files_only": True, "trust_remote_code": False}
    parts = {
        "config": lambda: _check_config(AutoConfig.from_pretrained(folder, **opened), None if gguf else folder, kind),
        "tokenizer": lambda: _check_tokenizer(AutoTokenizer.from_pretrained(folder, **opened), Path(out)),
    }
    for name, part in parts.items():
        try:
            part()
        except (PipelineError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # of any kind; whoever opens the model may meet it
            yield f"its {name}: {type(error).__name__}: {error}".encode("utf-8", "replace")
        else:
            yield b""


def _check_config(config: Any, folder: Path | None, kind: Kind) -> None:
    _check_depth(config)
    if folder is not None:
        _check_weights(folder, config, kind)


def _check_tokenizer(tokenizer: Any, out: Path) -> None:
    unfinished = out.with_name(f"{out.name}-unfinished")
    tokenizer.save_pretrained(
        unfinished
    )  # as it was read: a call takes its own truncation and padding from it for good
    tokenizer("a")
    _check_template(tokenizer)
    put_in_place(unfinished, out)


def _check_depth(config: Any) -> None:
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MOST_LAYERS:
        raise PipelineError(f"a base has at most {MOST_LAYERS} layers", got=layers, do=LIMITS.do)


def _check_weights(folder: Path, config: Any, kind: Kind) -> None:
    """Refuse a configuration of many more weights than the files hold, for which memory would be taken.

    Where a few are missing, whoever opens the model names them; a configuration of another kind is refused there too.
    """
    with torch.device("meta"):
        model = OPENED_BY[kind].from_config(config, trust_remote_code=False)
    described = model.num_parameters()
    files = list(folder.glob("*.safetensors"))
    stored = sum(map(_stored, files))
    if files and described > 2 * stored + SLACK and not hasattr(config, "quantization_config"):
        raise PipelineError(
            "the source must hold every weight of the model",
            got=f"{stored} numbers, where config.json describes {described}",
            do="Get a whole copy of it.",
        )


def _stored(path: Path) -> int:
    """How many numbers a safetensors file says that it holds."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, MOST_HEADER)))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _check_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        return
    try:
        turn = [{"role": "user", "content": "What is good?"}]
        prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except (TemplateError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
        return  # stage prepare tells of it where the template is wanted
    if len(prompt) > LONGEST_PROMPT:
        raise PipelineError(
            f"a chat template makes at most {LONGEST_PROMPT} characters of a short turn", got=len(prompt), do=LIMITS.do
        )
