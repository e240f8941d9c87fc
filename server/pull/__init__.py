"""Downloads of weights: whole and checked, or not there at all."""
