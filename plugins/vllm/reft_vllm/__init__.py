"""Many ReFT adapters on one vLLM engine; what is to be called is in :mod:`reft_vllm.offline` and the README."""
