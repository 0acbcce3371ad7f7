"""The HTTP server of one machine: one base, many adapters of a registry."""
