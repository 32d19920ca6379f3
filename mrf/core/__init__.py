"""Layer 0: errors, units, arrays, storage and the maps every other layer speaks in."""
