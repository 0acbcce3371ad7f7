"""params.yaml as typed sections, one file a section."""
