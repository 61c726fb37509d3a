"""Promptable segmentation without trained weights of its own: region hierarchies over ViT features and HED edges."""
