"""What `reft data add` finds in a file, and what it proposes for params.yaml."""
