"""How each layer of a network is computed, and where the mask stays."""
