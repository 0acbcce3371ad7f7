"""The rivals behind the interface of a ReFT model: LoRA and its kin, virtual tokens, full fine-tuning."""
