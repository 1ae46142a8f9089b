"""A package beside a config, for its custom_imports."""
