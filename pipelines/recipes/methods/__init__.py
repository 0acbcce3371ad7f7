"""Other methods beside ReFT, one file each: its parts, its recipe and what it trains; and the table of all methods."""
