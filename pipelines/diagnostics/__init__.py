"""What a task's own figure does not show: forgetting, calibration, slices, and rows that were nearly trained on."""
