"""ViT: the vision transformer and image classification."""
