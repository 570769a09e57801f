"""What fastcpc-prepare writes: checked images, the index, the cache of resized images."""
