"""Images per second of the warp, compared with other ways to augment the same images.

python -m benchmarks.warp --write
KERAS_BACKEND=jax python -m benchmarks.warp      needs no TensorFlow
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.options import POSITIVE, Options
from benchmarks.train_step.cases import backend
from support import command, memory
from trainer.loop import wakeup

_ROTATION, _SHIFT = 20, 0.2
_OURS, _RATIO = "warp", "warp / this"


@dataclasses.dataclass(frozen=True)
class WarpBenchmarkConfig(Options):
    """Sizes to measure."""

    height: int = command.option(218, "Height of the images, pixels.", POSITIVE)
    width: int = command.option(178, "Width of the images, pixels.", POSITIVE)
    size: int = command.option(
        224, "Side of what the warp makes of them, pixels.", POSITIVE
    )
    batch_size: int = command.option(32, "Images per batch.", POSITIVE)
    batches: int = command.option(4, "Batches per round.", POSITIVE)


def main(argv: list[str]) -> None:
    config = command.parse_config(WarpBenchmarkConfig, argv)
    # Before Keras is imported, which fails without it.
    name = backend("tensorflow", "jax")
    with wakeup.Watch(), memory.named("Use a smaller --batch_size or --batches."):
        measured = harness.measure(list(_cases(config, name)), config.rounds)
    for one in measured[1:]:
        one.facts[_RATIO] = harness.ratio(measured[0].samples, one.samples)
    settings = dataclasses.asdict(config) | {"backend": name}
    harness.report(f"warp-{name}", "images", measured, settings, config.write)


def _cases(config: WarpBenchmarkConfig, name: str) -> Iterator[harness.Case]:
    """Ours first; then the others that run on the backend of this name."""
    if name == "tensorflow":
        import trainer.quiet  # noqa: F401 - before Keras imports TensorFlow
    import keras

    from trainer import augmentation
    from trainer.config import Augmentation

    rng = np.random.default_rng(0)
    batches = [
        keras.ops.convert_to_tensor(_images(config, rng)) for _ in range(config.batches)
    ]
    uniform = rng.random((config.batch_size, augmentation.NUM_PARAMETERS), np.float32)
    parameters = augmentation.sample_parameters(
        keras.ops.convert_to_tensor(uniform), Augmentation(_ROTATION, _SHIFT, _SHIFT)
    )
    done = config.batches * config.batch_size

    def case(name: str, function: Callable) -> harness.Case:
        def run() -> int:
            _wait([function(batch) for batch in batches])
            return done

        return harness.Case(name, run)

    def ours(images):
        return augmentation.compiled(config.size)(images, parameters)

    yield case(_OURS, ours)
    yield case("the same again (noise)", ours)
    if name != "tensorflow":
        print("Skipped: the other cases need Keras' TensorFlow backend.")
        return
    yield case("Keras layers", _keras_layers(config))
    yield case("ImageProjectiveTransformV3", _projective(config, parameters))


def _images(config: WarpBenchmarkConfig, rng: np.random.Generator) -> np.ndarray:
    """(batch, height, width, 3) uint8: a few waves across each image."""
    rows = np.linspace(0, 1, config.height)[:, None, None]
    columns = np.linspace(0, 1, config.width)[:, None]
    waves = rng.uniform(1, 9, (2, config.batch_size, 1, 1, 3))
    angles = waves[0] * rows + waves[1] * columns
    return (127.5 + 127.5 * np.sin(angles)).astype(np.uint8)


def _wait(results: list[Any]) -> None:
    """Returns when the device has computed the results."""
    for result in results:
        if hasattr(result, "block_until_ready"):
            result.block_until_ready()  # JAX
        else:
            result[0, 0, 0, 0].numpy()  # one number, not all of them over the bus


def _keras_layers(config: WarpBenchmarkConfig) -> Callable[[Any], Any]:
    """Layers that Keras' guides put in front of a model, traced."""
    import keras
    import tensorflow as tf

    layers = keras.Sequential(
        [
            keras.layers.Resizing(config.size, config.size),
            keras.layers.Rescaling(1.0),
            keras.layers.RandomRotation(_ROTATION / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(_SHIFT, _SHIFT, fill_mode="nearest"),
            keras.layers.RandomFlip("horizontal"),
        ]
    )
    return tf.function(lambda images: layers(images, training=True))


def _projective(config: WarpBenchmarkConfig, parameters: Any) -> Callable[[Any], Any]:
    """TensorFlow's operation on the warp's own matrices."""
    import tensorflow as tf

    from trainer import augmentation

    @tf.function
    def function(images):
        size = (config.size, config.size)
        maps = augmentation.matrices(parameters, images.shape[1:3], size)
        # The warp counts output pixels from the center, this from the corner.
        start = maps[..., 2] - tf.reduce_sum(maps[..., :2], 2) * (config.size - 1) / 2
        maps = tf.concat([maps[..., :2], start[..., None]], axis=2)
        transforms = tf.reshape(maps, [-1, 6])
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=tf.pad(transforms, [[0, 0], [0, 2]]),
            output_shape=[config.size, config.size],
            interpolation="BILINEAR",
            fill_mode="NEAREST",
            fill_value=0.0,
        )

    return function


if __name__ == "__main__":
    command.run(main)
