"""Base, rows and recipe become a fitted and scored model; figures with their intervals."""
