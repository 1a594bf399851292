"""`videomac app`: label, reconstruct and look at features with the mouse, in the browser."""
