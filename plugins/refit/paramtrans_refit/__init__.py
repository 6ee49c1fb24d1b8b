"""Translators in closed form: the source's most useful hidden units, and what reads them solved for."""
