"""Layer 4: the file formats of scanners and of the people who read maps."""
