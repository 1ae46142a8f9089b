"""Configs: loaded, merged, checked, and built section by section."""
