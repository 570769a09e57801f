"""What each data set is on disk: files, classes, given and true labels."""
