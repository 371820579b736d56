"""The command line: its flags, `--help`, and entry point."""
