"""A model and a tokenizer of a few kilobytes, the same bits every time, made without a network."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
