"""Adapters of any origin on the project's test rows or those of public tasks: alone, or two beside each other."""
