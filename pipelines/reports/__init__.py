"""What people read: model card, plots, and the pages of search and evaluation."""
