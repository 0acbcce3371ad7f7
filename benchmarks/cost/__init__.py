"""What a training step costs, from a base's shape, a recipe, rows and a device's measured rates."""
