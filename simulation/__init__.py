"""Layer 1: sequences as tables of events and the signals they make (Bloch, EPG)."""
