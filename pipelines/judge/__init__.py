"""A judge of free answers: pairs in both orders, within bounds, calibrated on known verdicts and corrected by them."""
