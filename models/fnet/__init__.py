"""FNet: the Fourier transformer and text embedding."""
