"""The parts of a recipe, the methods, what each part may be chosen from, and published recipes."""
