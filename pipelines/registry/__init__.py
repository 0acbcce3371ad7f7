"""From a trained adapter to a registered version: history, package, versions, aliases."""
