"""A device that is simulated on the CPU, so that what an accelerator would show is seen without one."""
