"""Labels of a training set: label files in every format, and injected noise."""
