"""Training for each pixel and each object: targets, geometry, losses and matching."""
