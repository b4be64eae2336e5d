"""Each named like its module."""
