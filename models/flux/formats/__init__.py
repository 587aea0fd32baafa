"""The formats that the family is found in, and KerasHub's names of its layers."""
