"""The rivals of ReFT, one file a method: its parts, its recipe and what it trains; and the table of all methods."""
