"""Load a preset with KerasHub itself and run it: a program, as Keras keeps state per process.

Arguments, any number of times three: preset, inputs.npz, where to write outputs.npz.
"""

import sys

import keras
import keras_hub
import numpy as np


def main() -> None:
    arguments = iter(sys.argv[1:])
    for preset, inputs, outputs in zip(arguments, arguments, arguments, strict=True):
        backbone = keras_hub.models.Backbone.from_preset(preset)
        with np.load(inputs) as stored:
            output = backbone(dict(stored))
        named = output if isinstance(output, dict) else {"output": output}
        np.savez(
            outputs, **{name: keras.ops.convert_to_numpy(each) for name, each in named.items()}
        )


if __name__ == "__main__":
    main()
