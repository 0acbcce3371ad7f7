"""The benchmark of an accelerator."""
