"""The sections of the settings, by subject. ``schema`` combines them to a ``Config``."""
