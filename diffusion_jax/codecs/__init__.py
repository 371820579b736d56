"""The space that is diffused."""
