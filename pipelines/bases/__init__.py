"""The store of frozen models: fetched once, content-addressed, never changed."""
