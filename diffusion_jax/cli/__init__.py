"""The command line: its flags, its `--help`, and what they start."""
