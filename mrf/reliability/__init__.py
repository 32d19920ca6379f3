"""How reliable features are, how scanners are harmonized, and what features go with."""
