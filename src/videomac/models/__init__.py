"""The networks: backbones, the sparse encoder, the decoder, and VideoMAC itself."""
