"""Images inside container files: webdataset shards (tar) and Parquet files, read by offset without unpacking."""
