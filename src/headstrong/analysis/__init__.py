"""From per-sample numbers (HDF5) to tables: pandas, scipy and numpy, never torch."""
