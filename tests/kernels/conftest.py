"""The scripts of bench/ as modules for these tests, behind all other modules of the same names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "bench"))
