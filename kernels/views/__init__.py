"""The views of small images in one launch each: crop, flip, operations, normalisation.

``view`` launches the kernel. fastcpc/data/augment/fused.py calls it. The plain form is fastcpc/data/augment/batched.py.
"""
