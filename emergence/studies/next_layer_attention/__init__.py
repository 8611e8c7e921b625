"""Learning by next-layer attention against backpropagation and its random stand-ins, over depth."""
