"""Label a frame, get the video: `propagate` and `features`."""
