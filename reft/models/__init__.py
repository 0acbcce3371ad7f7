"""Edited models: decoder, encoder, encoder-decoder; decoding, scoring, mixed batches."""
