"""The process that a stage runs in: locks, device, memory, disk."""
