"""What changes how a network learns; each plugs into the one training loop and works on models of your own."""
