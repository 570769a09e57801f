"""The networks of fastcpc for images; each registers itself under its name."""
