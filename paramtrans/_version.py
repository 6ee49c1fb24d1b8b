"""The version, apart from everything else, so that whoever writes it down imports nothing more."""

__version__ = "0.1.0"
