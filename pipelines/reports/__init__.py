"""What people read: model card, plots, and the pages of a search."""
