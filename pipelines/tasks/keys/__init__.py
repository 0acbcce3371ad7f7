"""The keys of each task family in the section `prepare` of params.yaml, one family a file, and the table of them."""
