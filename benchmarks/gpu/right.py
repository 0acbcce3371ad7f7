"""Whether what is computed on a device is right: by the cone and whole, alone and in a batch, again and resumed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Figure, demand, distance
from benchmarks.sides.ours import Subject, fit_config
from reft import (
    AdapterSet,
    Collator,
    ConeConfig,
    Decoding,
    EditForm,
    Encoded,
    ReftConfig,
    ReftModel,
    fit,
    parse_layers,
    set_cone,
)
from reft.batching.running import Prompt, Row, RunningBatch
from reft.cone.decoder import Cone
from reft.edits.methods.forms import Init
from reft.edits.methods.table import DECLARED

CLOSE = 2e-4  # of the norm, in fp32: products of other shapes add up in another order
TIMES = 3.0  # in bf16, what a sum of another order may be further from fp32's than the plain one
PROMPT, COMPLETION, ROWS = 40, 6, 6
TOKENS = 8
CHOSEN = 1e-2  # logits, by which a chosen token may be below the likeliest of a pass of another shape


def cone(bench: Bench) -> Iterator[Figure]:
    """Compare losses and gradients by the cone with those of whole rows, in fp32 and in bf16."""
    for attention in ("sdpa", "eager"):
        for dtype in (torch.float32, torch.bfloat16):
            subject, exact = bench.small(dtype, attention=attention), bench.small(attention=attention)
            exact.base.load_state_dict(subject.base.state_dict())
            for positions, layers in (("f2+l2", "all"), ("l2", "upper-half"), ("l1+g2", "all")):
                case: Figure = {"attention": attention, "dtype": str(dtype), "positions": positions, "layers": layers}
                yield case | _beside_whole(subject, exact, _config(subject, layers, positions))


def _beside_whole(subject: Subject, exact: Subject, config: ReftConfig) -> Figure:
    """Return how far losses and gradients by the cone, and of whole rows, are from whole rows' in fp32."""
    rows = subject.rows(PROMPT, ROWS, completion=COMPLETION)
    right = _gradients(exact, config, rows, cone=False)
    by_cone, whole = (_gradients(subject, config, rows, cone=each) for each in (True, False))
    figure: Figure = {}
    for place, name in enumerate(("losses", "gradients")):
        found, plain = distance(by_cone[place], right[place]), distance(whole[place], right[place])
        figure |= {name: found, f"{name} of whole rows": plain}
        bound = CLOSE + TIMES * plain
        demand(found <= bound, f"{name} by the cone are whole rows' in fp32 to {bound:.1e}", figure)
    return figure


def methods(bench: Bench) -> Iterator[Figure]:
    """Compare each method's losses and gradients on the device with those on the CPU, in fp32."""
    here, there = bench.small(), bench.small()
    there.base.to("cpu")
    there.base.load_state_dict({name: value.cpu() for name, value in here.base.state_dict().items()})
    rows = here.rows(PROMPT, ROWS, completion=COMPLETION)
    for method, declared in DECLARED.items():
        rank = 4 if "rank" in declared.parts else None
        layers = parse_layers("upper-half", here.num_layers)
        start: Init = "identity" if declared.problem(EditForm(rank)) is None else "paper"
        config = ReftConfig(layers, "f2+l2", rank, method=method, init=start)
        found, right = (_gradients(subject, config, rows, cone=True, moved=0.05) for subject in (here, there))
        losses, gradients = (distance(one, other) for one, other in zip(found, right, strict=True))
        figure: Figure = {"method": method, "losses": losses, "gradients": gradients}
        close = max(losses, gradients) <= 10 * CLOSE
        yield demand(close, "losses and gradients on a device are those on the CPU", figure)


def padding(bench: Bench) -> Iterator[Figure]:
    """Compare rows of several lengths in one batch, padded on the left or the right, with each alone."""
    subject = bench.small()
    model = _model(subject, _config(subject, "all", "f2+l2"))
    rows = subject.rows(PROMPT, ROWS, completion=COMPLETION)
    with torch.no_grad():
        alone = torch.cat([model.target_losses(Collator(0)([row]).to(bench.device)) for row in rows])
        for side in ("left", "right"):
            batch = Collator(0, padding_side=side)(rows).to(bench.device)
            figure: Figure = {"padding": side, "losses": distance(model.target_losses(batch), alone)}
            yield demand(figure["losses"] <= CLOSE, "a row's losses in a batch are those of it alone", figure)
        figure = {"padding": "of the cone", "losses": distance(model.row_losses(rows, 0), alone)}
        yield demand(figure["losses"] <= CLOSE, "a row's losses in a batch are those of it alone", figure)


def generation(bench: Bench) -> Iterator[Figure]:
    """See that tokens of a batch, with a cache, are the likeliest of each row alone, without one."""
    subject = bench.small()
    prompts = subject.rows(PROMPT, ROWS, completion=0)
    batch = Collator(0)(prompts).to(bench.device)
    for positions in ("f2+l2", "l1+g3"):
        model = _model(subject, _config(subject, "all", positions))
        written = {}
        for name, edited in (("edited", True), ("unedited", False)):
            with torch.no_grad():
                if edited:
                    tokens = model.generate(batch.input_ids, batch.attention_mask, Decoding(max_new_tokens=TOKENS))
                else:
                    with model.disabled():
                        tokens = model.generate(batch.input_ids, batch.attention_mask, Decoding(max_new_tokens=TOKENS))
                new = written[name] = tokens[:, -TOKENS:].cpu()
                below = max(_below(model, row, own.tolist(), edited) for row, own in zip(prompts, new, strict=True))
            figure = {"positions": positions, "edits": name, "below the likeliest": below}
            yield demand(below <= CHOSEN, "a token chosen in a batch is the likeliest of its row alone", figure)
        differ = int((written["edited"] != written["unedited"]).any(-1).sum())
        figure = {"positions": positions, "rows that edits change": differ}
        yield demand(differ > 0, "edits change what is written", figure)


def mixed(bench: Bench) -> Iterator[Figure]:
    """Compare rows that have an adapter each, in one pass and in a running batch, with each under its adapter alone."""
    subject = bench.small()
    models = {f"adapter {seed}": _model(subject, _config(subject, "all", "f2+l2"), seed=seed) for seed in range(3)}
    prompts = subject.rows(PROMPT, ROWS, completion=0)
    names = [(*models, None)[place % 4] for place in range(ROWS)]
    with torch.no_grad():
        logits = AdapterSet(models).rows(names)(Collator(0)(prompts).to(bench.device), logits_to_keep=1)[:, 0]
        alone = []
        for name, row in zip(names, prompts, strict=True):
            model = next(iter(models.values())) if name is None else models[name]
            own = Collator(0)([row]).to(bench.device)
            if name is None:
                with model.disabled():
                    alone.append(model(own, logits_to_keep=1)[0, 0])
            else:
                alone.append(model(own, logits_to_keep=1)[0, 0])
    figure: Figure = {"way": "one pass", "logits": distance(logits, torch.stack(alone))}
    yield demand(figure["logits"] <= CLOSE, "a row's logits beside other adapters are those of it alone", figure)
    written = _run_batch(subject, prompts, [None if name is None else models[name] for name in names])
    below = 0.0
    for name, row, tokens in zip(names, prompts, written, strict=True):
        model = next(iter(models.values())) if name is None else models[name]
        with torch.no_grad():
            below = max(below, _below(model, row, tokens, name is not None))
    figure = {"way": "a running batch", "below the likeliest": below}
    yield demand(below <= CHOSEN, "a token chosen beside other adapters is the likeliest of its row alone", figure)


def resume(bench: Bench) -> Iterator[Figure]:
    """Interrupt a training, resume it, and compare what it ends with with an uninterrupted one."""
    subject = bench.small()
    rows = subject.rows(PROMPT, 8, completion=COMPLETION)
    config = replace(fit_config(4, 3), checkpoint_every=2)
    with tempfile.TemporaryDirectory() as folder:
        ended = []
        for stops in ((None,), (3, None)):
            for stop in stops:
                model = _model(subject, _config(subject, "upper-half", "l2"), moved=0.0)
                checkpoint = Path(folder) / str(len(stops))
                for step in fit(model, rows, config, pad_id=0, checkpoint=checkpoint):
                    if stop is not None and step.step == stop:
                        break
            ended.append(torch.cat([value.flatten() for value in model.trainable_parameters().values()]).detach())
    same = bool(torch.equal(ended[0], ended[1]))
    figure = {"parameters": distance(ended[1], ended[0]), "same bits": same}
    # On accelerators some derivatives add up in no fixed order, and AdamW follows the sign of gradients near 0.
    bound = 0.0 if bench.device.type == "cpu" else 1e-2
    yield demand(figure["parameters"] <= bound, "a resumed training ends as an uninterrupted one", figure)


def _config(subject: Subject, layers: str, positions: str) -> ReftConfig:
    return ReftConfig(parse_layers(layers, subject.num_layers), positions, 4, init="paper")


def _model(subject: Subject, config: ReftConfig, *, seed: int = 0, moved: float = 0.3) -> ReftModel:
    """Return a model whose edits were moved from their start, so that they change answers."""
    model = ReftModel(subject.base, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            drawn = torch.empty(value.shape).normal_(0.0, 1.0, generator=generator).to(value.device)
            value.add_(moved * drawn)
    return model


def _gradients(
    subject: Subject, config: ReftConfig, rows: Sequence[Encoded], *, cone: bool, moved: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return losses and all gradients of a model, on the CPU."""
    set_cone(subject.base, ConeConfig(enabled=cone))
    model = _model(subject, config, moved=moved)
    demand(not cone or Cone.of(model) is not None, "the base has a cone", {"base": subject.name})
    model.train()
    model.begin_rows(rows)
    losses = model.row_losses(rows, 0)
    losses.mean().backward()
    parameters = model.trainable_parameters().values()
    gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
    return losses.detach().cpu(), torch.cat([gradient.flatten() for gradient in gradients]).cpu()


def _below(model: ReftModel, prompt: Encoded, tokens: Sequence[int], edited: bool) -> float:
    """Return by how much chosen tokens were at most below the likeliest, when the row is read alone and at once."""
    row = Encoded((*prompt.input_ids, *tokens), prompt.num_tokens)
    batch = Collator(0)([row]).to(model.device)
    if edited:
        logits = model(batch, logits_to_keep=len(tokens) + 1)[0, :-1]
    else:
        with model.disabled():
            logits = model(batch, logits_to_keep=len(tokens) + 1)[0, :-1]
    chosen = logits.cpu().gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    return float((logits.cpu().max(-1).values - chosen).max())


def _run_batch(subject: Subject, prompts: Sequence[Encoded], adapters: Sequence[ReftModel | None]) -> list[list[int]]:
    """Continue prompts together, half of them joining when the others have begun."""
    running: Any = RunningBatch(subject.base)
    rows = [Row(Prompt(each.input_ids, own, TOKENS)) for each, own in zip(prompts, adapters, strict=True)]
    written: dict[int, list[int]] = {id(row): [] for row in rows}

    def note(tokens: Sequence[Any], of: Sequence[Row]) -> None:
        for row, token in zip(of, tokens, strict=True):
            written[id(row)].append(token.chosen.id)

    for late, joining in enumerate((rows[::2], rows[1::2])):
        note(running.admit(joining), joining)
        if not late:
            there = list(running.rows)
            note(running.step(), there)
    while running.rows:
        there = list(running.rows)
        note(running.step(), there)
    return [written[id(row)] for row in rows]
