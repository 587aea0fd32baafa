"""Let KerasHub classify with a preset; run by `test_keras_hub_classifies_the_same`.

    KERAS_BACKEND=torch python run_keras_hub.py PRESET INPUTS OUTPUTS

INPUTS has `images`, ready for the backbone, and `image`, uint8; OUTPUTS gets `output` and
`pixels`. Knows nothing about our models.
"""

import sys
import warnings

import keras
import keras_hub
import numpy as np

if __name__ == "__main__":
    warnings.simplefilter("error", UserWarning)  # of weights that Keras leaves out
    preset, inputs_file, outputs_file = sys.argv[1:]
    inputs = np.load(inputs_file)
    classifier = keras_hub.models.ImageClassifier.from_preset(preset)
    output = classifier(inputs["images"], training=False)
    pixels = classifier.preprocessor.image_converter(inputs["image"])
    np.savez(
        outputs_file,
        output=keras.ops.convert_to_numpy(output),
        pixels=keras.ops.convert_to_numpy(pixels),
    )
