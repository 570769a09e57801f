"""The paper's tables and figures: grids of runs, published numbers."""
