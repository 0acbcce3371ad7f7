"""What the commands of `reft` print, one file a command."""
