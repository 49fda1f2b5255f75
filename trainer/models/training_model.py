"""The training model: the inference model's functions and names, in faster layers.

Its outputs are a dict: `LOGIT`, what the inference model returns, and, where they are
trained too, `ATTRIBUTES`: one logit for each auxiliary attribute, as in Rudd, Günther
and Boult, "MOON: A Mixed Objective Optimization Network for the Recognition of Facial
Attributes", ECCV 2016; and GoogLeNet's auxiliary heads, which predict the label from
its middle. The inference model is what is saved and evaluated.
"""

import keras
from keras import layers

from trainer.models import googlenet
from trainer.models.layers import (
    FusedBatchNormalization,
    ReplicaDropout,
    can_fuse,
)

LOGIT, ATTRIBUTES = "logit", "attributes"
#: What the names of the layers of the training model alone begin with.
_OWN = (ATTRIBUTES, *(f"{name}_" for name in googlenet.AUXILIARY))


def build(
    inference_model: keras.Model,
    momentum: float,
    attributes: int = 0,
    aux_heads: bool = False,
) -> keras.Model:
    """Copies a model for training, with its weights and names.

    Args:
      inference_model: what `models.build` returns.
      momentum: of batch normalization's moving statistics.
      attributes: number of auxiliary attributes to train, 0 for none.
      aux_heads: add GoogLeNet's auxiliary heads.

    Returns:
      A model from images to a dict: `LOGIT` (batch, 1) and, if there are any,
      `ATTRIBUTES` (batch, attributes) and, by the names in `googlenet.AUXILIARY`,
      the auxiliary heads' (batch, 1), float32 logits.
    """

    def clone(layer):
        kind, config = type(layer), layer.get_config()
        if kind is layers.BatchNormalization:
            config |= {"momentum": momentum}
        if can_fuse(layer):
            kind = FusedBatchNormalization
        elif kind is layers.Dropout:
            kind = ReplicaDropout
        return kind.from_config(config)

    copy = keras.models.clone_model(inference_model, clone_function=clone)
    copy.set_weights(inference_model.get_weights())
    outputs = {LOGIT: copy.output}
    if attributes:
        pooled = copy.get_layer(LOGIT).input
        head = layers.Dense(attributes, dtype="float32", name=ATTRIBUTES)
        outputs[ATTRIBUTES] = head(pooled)
    if aux_heads:
        for name, block in googlenet.AUXILIARY.items():
            features = copy.get_layer(block).output
            outputs[name] = googlenet.auxiliary_head(features, name)
    return keras.Model(copy.input, outputs, name=copy.name)


def shared_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights that the inference model has too, in the same order."""
    return [weight for weight in model.weights if not weight.path.startswith(_OWN)]
