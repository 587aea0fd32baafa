"""HTTP in, jobs out. Never imports torch, diffusers or transformers."""
