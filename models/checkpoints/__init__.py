"""Files to tensors, whatever the family: safetensors, float8, JSON beside them, strict filling."""
