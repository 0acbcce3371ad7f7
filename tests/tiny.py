"""A model and a tokenizer of a few kilobytes, the same bits every time, made without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
CORPUS = ["Review: a good film, a bad film.\nSentiment: positive", "Review: it was so so.\nSentiment: negative"]


def tiny_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows every byte; " positive" and " negative" are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        min_frequency=1,
        show_progress=False,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_llama(*, vocab: int = 400, layers: int = 3, hidden: int = 32, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama in float32 and evaluation mode, with tied embeddings."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def write_tiny_base(folder: Path, *, layers: int = 3, seed: int = 0, chat: bool = True) -> Path:
    """Write a transformers folder as a user would have it under models/own; return it."""
    tokenizer = tiny_tokenizer(chat=chat)
    tiny_llama(vocab=len(tokenizer), layers=layers, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ENCODER: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def tiny_encoder(family: str, *, seed: int = 0) -> PreTrainedModel:
    """A random BERT or RoBERTa in float32 and evaluation mode, without a pooler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "bert":
            return BertModel(BertConfig(**ENCODER, initializer_range=0.3), add_pooling_layer=False).eval()
        config = RobertaConfig(**ENCODER, initializer_range=0.3, type_vocab_size=1)
        return RobertaModel(config, add_pooling_layer=False).eval()


def tiny_encoder_with_head(family: str, outputs: int, *, seed: int = 0) -> PreTrainedModel:
    """The same encoders with a head of so many answers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        numbers = {**ENCODER, "initializer_range": 0.3, "num_labels": outputs}
        if family == "bert":
            return BertForSequenceClassification(BertConfig(**numbers)).eval()
        return RobertaForSequenceClassification(RobertaConfig(**numbers, type_vocab_size=1)).eval()


def encoder_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """The bytes of :func:`tiny_tokenizer`, with special tokens around texts and pairs as the family has them."""
    plain = tiny_tokenizer(chat=False)
    ends = [("<s>", plain.bos_token_id), ("</s>", plain.eos_token_id)]
    pair = "<s> $A </s> $B:1 </s>:1" if family == "bert" else "<s> $A </s> </s> $B </s>"
    tokenizer = plain.backend_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=ends)
    reads = ["input_ids", "attention_mask", *(["token_type_ids"] if family == "bert" else [])]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_input_names=reads
    )


def write_tiny_encoder(folder: Path, family: str) -> Path:
    """Write a transformers folder of an encoder as a user would have it under models/own; return it."""
    tiny_encoder(family).save_pretrained(folder)
    encoder_tokenizer(family).save_pretrained(folder)
    return folder
