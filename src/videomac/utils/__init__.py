"""What every part of the package needs and none of them is about."""
