"""The parts of a recipe, the methods, the domains they are chosen from, and published recipes."""
