"""KerasHub's files of weights, heads and adapters, as they lie on disk and beside our parameters.

Knows nothing about any family: each says in its own `keras_layers` what KerasHub calls its layers.
"""
