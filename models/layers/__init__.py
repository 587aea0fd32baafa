"""What families build their networks from, and the legend of shapes.

B batch · C channels · H W pixels · h w latent grid (H/8, W/8) · S image patches (h/2 · w/2) ·
T text tokens · L any sequence · D model width · n heads · d head width (D = n·d) · K classes.
Knows nothing about files or families.
"""
