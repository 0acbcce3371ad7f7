"""What ``reft align`` looks at: the model, taught first where it is asked for, and the counterfactual rows."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from pipelines.align.map import Figures
from pipelines.align.rows import AlignData, make_data
from pipelines.bases.load import LoadedBase, load_base
from pipelines.bases.store import obtain
from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.model.cone import cone_config
from pipelines.params.align import TeachParams
from pipelines.params.whole import Params
from pipelines.project.code import code_sha256
from pipelines.project.graph import read_graph
from pipelines.project.lineage import package_version
from pipelines.runtime.device import resolve_device
from pipelines.tracking.live import LiveRun
from reft import FitConfig, ReftConfig, ReftModel, adapter_sha256, fit, load_adapter, parse_layers, set_cone
from reft.causal import DecoderProbe, answer_accuracy, probe_decoder, token_places

# What decides a cell of a map.
CODE = (
    "pipelines/align",
    "pipelines/bases/backbone.py",
    "pipelines/bases/load.py",
    "pipelines/contracts/base.py",
    "pipelines/model/cone.py",
    "pipelines/runtime/device.py",
    "reft/adapters",
    "reft/causal",
    "reft/cone",
    "reft/data.py",
    "reft/edits",
    "reft/models",
    "reft/training",
)


class AlignWorkspace:
    """A model and the rows of an alignment, ready for use.

    Args:
        loaded: the frozen base.
        model: the base itself, or an adapter over it.
        data: the rows.
        layers: the layers that are looked at.
        adapter_sha256: of the adapter that stage train left, where that is the model.

    Attributes:
        untaught: the frozen base's own accuracy, where an adapter was taught after it.
    """

    def __init__(
        self,
        loaded: LoadedBase,
        model: torch.nn.Module,
        data: AlignData,
        layers: tuple[int, ...],
        adapter_sha256: str | None,
    ) -> None:
        self.data = data
        self.layers = layers
        self.device = loaded.model.device
        self.untaught: Figures | None = None
        self._tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        self._model = model
        self.hidden_size = loaded.record.hidden_size
        self._identity = [loaded.record.sha256, adapter_sha256]

    @cached_property
    def probe(self) -> DecoderProbe:
        """The model, ready to be read and edited: after :meth:`teach`, for it is frozen by this."""
        return probe_decoder(self._model, self.data.choices, self.layers)

    def key(self, params: Params) -> str:
        """Return a short hash of everything that a cell's figures depend on, but for its own place."""
        grid = {"layers", "positions", "dimensions", "blocks"}  # a map may grow
        packages = [f"{name} {package_version(name)}" for name in ("torch", "transformers")]
        run = [params.run.threads, params.run.device, params.evaluate.batch_size]
        settings = [params.align.model_dump(exclude=grid), params.seed, *run]
        parts = [*self._identity, self.data.sha256, settings, params.cone.enabled, packages, code_sha256(CODE)]
        return sha256_json(parts)[:16]

    def teach(self, params: Params, *, folder: Path, live: LiveRun) -> None:
        """Let the adapter learn the task, where ``align.teach`` is given; a training that was stopped goes on.

        Args:
            params: the whole of params.yaml.
            folder: of its checkpoints.
            live: the run that its losses are logged to.
        """
        teach = params.align.teach
        if teach is None or not isinstance(self._model, ReftModel):
            return
        size = params.evaluate.batch_size
        frozen = DecoderProbe(self._model.base, self.data.choices)
        self.untaught = Figures.of(answer_accuracy(frozen, self.data.asked, self.data.labels, batch_size=size))
        with tqdm(desc="teach", unit="step") as bar, live.child("taught") as child:
            for step in fit(
                self._model, self.data.taught, _fit_config(teach, params.seed), pad_id=0, checkpoint=folder
            ):
                bar.total = step.total_steps
                bar.set_postfix(loss=f"{step.loss:.3f}", refresh=False)
                bar.update()
                if not step.replayed:
                    child.log_metrics({"loss": step.loss}, step=step.step)

    def text_at(self, positions: str) -> str:
        """Return the text of the tokens at positions in the first base."""
        row = self.data.test[0].base
        (places,) = token_places([row], positions)
        return str(self._tokenizer.decode([row.input_ids[place] for place in places.tolist()]))


def open_alignment(params: Params, *, root: Path) -> AlignWorkspace:
    """Load the model and make the rows, as the section ``align`` says.

    Raises:
        PipelineError: if the base, the adapter or the rows cannot be used, or layers or positions do not exist in them.
    """
    params.require_decoder("reft align")
    torch.set_num_threads(params.run.threads)
    align, section = params.align, params.base
    record = obtain(section.source, section.sha256, section.dtype, root=root)
    loaded = load_base(record, device=resolve_device(params.run.device), root=root)
    set_cone(loaded.model, cone_config(params.cone, root, record.sha256))
    data = make_data(align, loaded.tokenizer, root=root, seed=params.seed)
    model, identity = _model(params, loaded, root)
    try:
        layers = parse_layers(align.layers, record.num_layers)
        workspace = AlignWorkspace(loaded, model, data, layers, identity)
        rows = (*data.train, *data.validation, *data.test)
        for positions in align.positions:
            token_places([each for row in rows for each in (row.base, row.taken[0].source)], positions)
    except ValueError as error:
        raise PipelineError("align must name layers and tokens that are there", got=error, do="Correct it.") from None
    for name, sizes in (("dimensions", align.dimensions), ("blocks", align.blocks)):
        if max(sizes, default=0) > record.hidden_size:
            raise PipelineError(
                f"align.{name} must not be above the base's hidden size {record.hidden_size}",
                got=max(sizes),
                do="Lower it.",
            )
    return workspace


def _model(params: Params, loaded: LoadedBase, root: Path) -> tuple[torch.nn.Module, str | None]:
    """Return the model that is looked at, and its adapter's hash where stage train left it."""
    align = params.align
    if align.model == "adapter":
        path = root / read_graph(root).paths["adapter"]
        try:
            return load_adapter(path, loaded.model, base_sha256=loaded.record.sha256), adapter_sha256(path)
        except (ValueError, OSError) as error:
            raise PipelineError(
                "align.model: adapter needs a ReFT adapter of train",
                got=error,
                do="Set method.name: reft and run: reft run; or set align.model: base.",
            ) from None
    if align.teach is None:
        return loaded.model, None
    teach = align.teach
    try:
        config = ReftConfig(parse_layers(teach.layers, loaded.record.num_layers), teach.positions, teach.rank)
        return ReftModel(loaded.model, config, seed=params.seed), None
    except ValueError as error:
        raise PipelineError("align.teach must fit the base", got=error, do="Correct it.") from None


def _fit_config(teach: TeachParams, seed: int) -> FitConfig:
    return FitConfig(
        epochs=teach.epochs,
        batch_size=teach.batch_size,
        accumulation=1,
        learning_rate=teach.learning_rate,
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=seed,
        checkpoint_every=10,
    )
