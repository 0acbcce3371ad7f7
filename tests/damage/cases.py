"""What may befall the files of a finished project, by the place where they lie."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RUN = ("reft", "run")
ASK_AGAIN = ("dvc", "repro", "--single-item", "--force", "evaluate")  # which reads base, data and adapter
TRAIN_AGAIN = ("dvc", "repro", "--single-item", "--force", "train")  # which goes on from what work in progress there is
SEARCH_AGAIN = ("dvc", "repro", "--single-item", "--force", "search")


@dataclass(frozen=True)
class Damage:
    """One kind of damage.

    Attributes:
        name: what is damaged, and how.
        path: of the damaged file or folder, under the project's folder, or its home's if it begins with "home"; ``*``
            stands for names that are hashes.
        hurt: damages it.
        command: what is run then.
        same_bytes: whether the file must be as it was afterwards, if the command succeeds; else it is work in progress,
            or what the command does not read.
    """

    name: str
    path: str
    hurt: Callable[[Path], object]
    command: tuple[str, ...] = RUN
    same_bytes: bool = True


def cut(path: Path) -> None:
    """Leave the first half."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave no byte."""
    os.truncate(path, 0)


def zero(path: Path) -> None:
    """Zeros in the middle, at the same size."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(bytes(min(4000, size // 3)))


def zero_quietly(path: Path) -> None:
    """The same, and the file has its time of change again, by which DVC tells one that it knows."""
    before = path.stat()
    zero(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def garble(path: Path) -> None:
    """Bytes that are no text, at the same size."""
    path.write_bytes(bytes(range(128, 256)) * (path.stat().st_size // 128 + 1))


def other_json(path: Path) -> None:
    """JSON of another shape."""
    path.write_text('["other"]\n', encoding="utf-8")


def remove(path: Path) -> None:
    """It is gone."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def folder_instead(path: Path) -> None:
    """A folder has its name."""
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x", encoding="utf-8")


def file_instead(path: Path) -> None:
    """A file has its name."""
    shutil.rmtree(path)
    path.write_text("x", encoding="utf-8")


def link_instead(path: Path) -> None:
    """A link has its name, to where it was moved."""
    moved = path.with_name(f"{path.name}-moved")
    path.rename(moved)
    path.symlink_to(moved)


def replace(old: str, new: str) -> Callable[[Path], None]:
    """Another word in a file."""

    def hurt(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return hurt


def write(text: str) -> Callable[[Path], None]:
    """A file that a killed process left there."""

    def hurt(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return hurt


BASE = "home/reft/bases/*"
ADAPTER, TENSORS = "models/adapter", "models/adapter/adapter.safetensors"
CHECKPOINT = ".reft/train/*/checkpoints/*"
REGISTERED = "mlflow/artifacts/models/*/artifacts/artifacts/adapter"

DAMAGES = (
    Damage("base: zeros in the weights", f"{BASE}/model.safetensors", zero_quietly, ASK_AGAIN),
    Damage("base: weights cut", f"{BASE}/model.safetensors", cut, TRAIN_AGAIN),
    Damage("base: config garbled", f"{BASE}/config.json", garble, ASK_AGAIN),
    Damage("base: no tokenizer", f"{BASE}/tokenizer.json", remove, ASK_AGAIN),
    Damage("base: a link for the weights", f"{BASE}/model.safetensors", link_instead, ASK_AGAIN, same_bytes=False),
    Damage("base: all gone", "home/reft/bases", remove, ASK_AGAIN, same_bytes=False),
    Damage("base: kept hashes garbled", f"{BASE}/.hashes.json", garble, ASK_AGAIN, same_bytes=False),
    Damage("adapter: tensors cut", TENSORS, cut),
    Damage("adapter: zeros in the tensors", TENSORS, zero),
    Damage("adapter: zeros that DVC does not see", TENSORS, zero_quietly, ASK_AGAIN),
    Damage("adapter: another prompt", f"{ADAPTER}/adapter_config.json", replace("Review", "Preview")),
    Damage("adapter: gone", ADAPTER, remove),
    Damage("adapter: a file for the folder", ADAPTER, file_instead),
    Damage("adapter: a link for the tensors", TENSORS, link_instead, same_bytes=False),
    Damage("prepared: rows garbled", "data/prepared/train.jsonl", garble),
    Damage("prepared: rows cut", "data/prepared/train.jsonl", cut),
    Damage("prepared: no test rows", "data/prepared/test.jsonl", remove),
    Damage("prepared: task of another shape", "data/prepared/task.json", other_json),
    Damage("own rows cut", "data/own/reviews.csv", cut),
    Damage("own model cut", "models/own/tiny/model.safetensors", cut),
    Damage("params.yaml cut", "params.yaml", cut),
    Damage("params.yaml garbled", "params.yaml", garble),
    Damage("dvc.yaml cut", "dvc.yaml", cut),
    Damage("dvc.lock cut", "dvc.lock", cut),
    Damage("dvc.lock garbled", "dvc.lock", garble),
    Damage("dvc.lock gone", "dvc.lock", remove),
    Damage(
        "dvc.lock and its copy garbled", "dvc.lock", lambda path: (garble(path), garble(path.parent / ".reft/dvc.lock"))
    ),
    Damage("DVC's cache gone", ".dvc/cache", remove, same_bytes=False),
    Damage(
        "DVC's cache and the adapter cut",
        TENSORS,
        lambda path: [cut(file) for file in (*cached(path), path)],
    ),
    Damage("DVC's note half written", ".dvc/tmp/rwlock", write('{"a"'), same_bytes=False),
    Damage("DVC's settings garbled", ".dvc/config", garble),
    Damage("search: best.yaml garbled", "search/best.yaml", garble),
    Damage("search: trials of another shape", "search/trials.json", other_json),
    Damage("metrics: evaluation cut", "metrics/evaluation.json", cut),
    Damage("metrics: training of another shape", "metrics/train.json", other_json),
    Damage("metrics: a folder for a file", "metrics/evaluation.json", folder_instead),
    Damage("predictions gone", "reports/predictions.parquet", remove),
    Damage("studies cut", ".reft/optuna.db", cut, same_bytes=False),
    Damage("studies garbled, and searched at once", ".reft/optuna.db", garble, SEARCH_AGAIN, same_bytes=False),
    Damage("studies empty", ".reft/optuna.db", empty, same_bytes=False),
    Damage("studies: a folder for the file", ".reft/optuna.db", folder_instead, same_bytes=False),
    Damage("a run's note cut", ".reft/flow-run.json", write('{"flow_run": "0'), same_bytes=False),
    Damage("a run's note of another shape", ".reft/flow-run.json", write('["other"]'), same_bytes=False),
    Damage("a stage's marker cut", ".reft/stages/train.json", cut, same_bytes=False),
    Damage("a lock's note garbled", ".reft/locks/run.json", write("\x00"), same_bytes=False),
    Damage(
        "a checkpoint cut, and trained at once", f"{CHECKPOINT}/state.safetensors", cut, TRAIN_AGAIN, same_bytes=False
    ),
    Damage("a checkpoint's record garbled", f"{CHECKPOINT}/state.json", garble, TRAIN_AGAIN, same_bytes=False),
    Damage("constants cut", ".reft/cone/*/*.safetensors", cut, ASK_AGAIN, same_bytes=False),
    Damage("all work in progress gone", ".reft", remove, same_bytes=False),
    Damage("registration.json cut", "registration.json", cut),
    Damage("registration.json gone", "registration.json", remove),
    Damage("registered adapter cut", f"{REGISTERED}/adapter.safetensors", cut),
    Damage("registered adapter: zeros", f"{REGISTERED}/adapter.safetensors", zero_quietly),
    Damage("registered adapter gone", REGISTERED, remove),
    Damage("registry: database cut", "mlflow/mlflow.db", cut),
    Damage("registry: database gone", "mlflow/mlflow.db", remove, same_bytes=False),
)


def cached(tensors: Path) -> list[Path]:
    """What DVC's cache has of the adapter's tensors."""
    content = tensors.read_bytes()
    root = tensors.parents[2]
    found = [file for file in (root / ".dvc/cache").rglob("*") if file.is_file() and file.read_bytes() == content]
    assert found
    return found
