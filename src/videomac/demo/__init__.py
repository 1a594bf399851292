"""The whole way from clips to pre-trained weights, on a CPU."""
