"""Typed settings of a run, read from files and the command line. Imports nothing larger than PyYAML."""
