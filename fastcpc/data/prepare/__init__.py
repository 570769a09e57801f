"""The parts of fastcpc-prepare: checks of images, the index, the cache of resized images."""
