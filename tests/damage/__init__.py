"""Damage to the files of a finished project: each kind is mended, refused with advice, or harmless."""
