"""Other methods behind the interface of a ReFT model: LoRA and DoRA, virtual tokens, full fine-tuning."""
