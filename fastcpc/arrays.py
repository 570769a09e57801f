"""Types of NumPy arrays. A variable's suffix gives the shape: N all samples, M some samples, K classes."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
