"""FLUX.1: the transformer, its schedule and the text-to-image pipeline."""
