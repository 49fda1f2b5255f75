"""A run's parts: models, optimizer, objective and steps, built from the options."""

import dataclasses
import functools
from collections.abc import Mapping

import keras
import tensorflow as tf

from schemas.manifest import Manifest
from support.errors import usage_error
from trainer import models
from trainer.augmentation import Augmenter
from trainer.config import TrainConfig
from trainer.data import Dataset, evaluation_dataset, train_dataset
from trainer.data.input_pipeline import prefetch_onto
from trainer.loop.optimizer import Optimizer, Schedule
from trainer.loop.runtime import Runtime
from trainer.loop.steps import EvaluationStep, Objective, TrainStep
from trainer.loop.tensorboard import check_profile_steps
from trainer.models.training_model import build as build_training_model
from trainer.models.training_model import shared_weights

#: Below this many steps in all, the moving statistics must follow faster.
_SHORT_RUN_STEPS = 2000
_STATISTICS = ("/moving_mean", "/moving_variance")
_MOMENTUM, _SHORT_RUN_MOMENTUM, _LEAST_MOMENTUM = 0.99, 0.97, 0.8


@dataclasses.dataclass
class Job:
    """A run's parts, built once by `build_job`.

    Attributes:
      training_model: see `trainer.models.training_model`.
      model: the inference model, in float32, that is evaluated and saved: it takes
        the averaged weights.
      preprocessing: the name of the models' preprocessing.
      cached: the splits whose decoded images stay in memory.
    """

    config: TrainConfig
    runtime: Runtime
    dataset: Dataset
    steps_per_epoch: int
    training_model: keras.Model
    model: keras.Model
    preprocessing: str
    optimizer: Optimizer
    objective: Objective
    train_step: TrainStep
    evaluation_step: EvaluationStep
    cached: tuple[str, ...] = ()

    def train_dataset(self, start: int) -> tf.data.Dataset:
        """Batches of the whole run from a step on, see `data.train_dataset`."""
        config = self.config
        batches = train_dataset(
            self.dataset,
            config.batch_size,
            config.seed,
            config.epochs,
            start,
            config.shuffle_buffer,
            cache="train" in self.cached,
            as_supervised=False,
        )
        device, *others = self.runtime.devices
        if device.startswith("GPU") and not others:
            return prefetch_onto(batches, device)
        return batches  # several devices take their parts from the host

    def evaluation_dataset(self, split: str) -> tf.data.Dataset:
        """Batches of a split, see `data.evaluation_dataset`."""
        return evaluation_dataset(
            self.dataset,
            split,
            self.config.batch_size,
            cache=split in self.cached,
            as_supervised=False,
        )

    @functools.cached_property
    def validation(self) -> tf.data.Dataset:
        """The validation split: traced and cached once, iterated after every epoch."""
        return self.evaluation_dataset("validation")

    @property
    def variables(self) -> Mapping[str, tf.Variable]:
        """All state by name, as checkpoints hold it."""
        state = {
            f"model/{index}": variable.value
            for index, variable in enumerate(self.training_model.variables)
        }
        state |= {
            f"optimizer/{name}": variable
            for name, variable in self.optimizer.variables.items()
        }
        return state | {"sums": self.train_step.sums}

    def average_statistics(self) -> None:
        """Averages batch normalization's moving statistics over the replicas.

        Each replica follows its own part of the batches; reading a variable would give
        the first one's. The averages are linear in the batches, so averaging them early
        changes nothing but rounding.
        """
        strategy = self.runtime.strategy
        if strategy.num_replicas_in_sync == 1:
            return
        for variable in self.training_model.non_trainable_variables:
            if variable.path.endswith(_STATISTICS):
                values = strategy.experimental_local_results(variable.value)
                variable.value.assign(tf.reduce_mean(tf.stack(values), axis=0))

    def publish(self) -> None:
        """Copies the averaged weights and the moving statistics into `model`."""
        self.average_statistics()
        trainable = self.training_model.trainable_variables
        pairs = zip(trainable, self.optimizer.averages, strict=True)
        values = {variable.path: average for variable, average in pairs}
        sources = shared_weights(self.training_model)
        for source, target in zip(sources, self.model.weights, strict=True):
            value = values.get(source.path, source.value)
            target.assign(tf.convert_to_tensor(value))


def build_job(
    config: TrainConfig,
    runtime: Runtime,
    dataset: Dataset,
    preprocessing: str | None = None,
    cached: tuple[str, ...] = (),
) -> Job:
    """Builds model, optimizer and steps for a dataset.

    A run that resumes gives its preprocessing: its weights come from a checkpoint, so
    those of --weights are not read again.

    Raises:
      UserError: the batch is larger than the training split, or smaller than the
        number of replicas; the weights do not fit (exit 2).
    """
    steps_per_epoch = _steps_per_epoch(config, runtime, dataset)
    total = steps_per_epoch * config.epochs
    check_profile_steps(config, total)
    strategy = runtime.strategy
    with strategy.scope():
        model, training_model, preprocessing = _build_models(
            config,
            norm_momentum(total),
            preprocessing,
            len(dataset.manifest.attributes),
        )
        if config.regime == "transfer":
            models.freeze_backbone(training_model)
        optimizer = Optimizer(
            [variable.value for variable in training_model.trainable_variables],
            Schedule(
                config.learning_rate,
                round(config.warmup_epochs * steps_per_epoch),
                total,
                config.schedule == "cosine",
            ),
            config.weight_decay,
            config.clip_norm,
            config.ema,
            scale_loss=runtime.precision == "float16",
        )
        augment = Augmenter(
            config.augment, config.augmentation, config.input_size, config.seed
        )
    objective = _objective(config, dataset)
    return Job(
        config=config,
        runtime=runtime,
        dataset=dataset,
        steps_per_epoch=steps_per_epoch,
        training_model=training_model,
        model=model,
        preprocessing=preprocessing,
        optimizer=optimizer,
        objective=objective,
        train_step=TrainStep(
            training_model,
            augment,
            optimizer,
            objective,
            runtime.xla,
            strategy,
            config.seed,
        ),
        evaluation_step=EvaluationStep(model, strategy),
        cached=cached,
    )


def _objective(config: TrainConfig, dataset: Dataset) -> Objective:
    manifest = dataset.manifest
    return Objective(
        config.batch_size,
        config.label_smoothing,
        manifest.class_weights,
        auxiliary_attributes(manifest) if config.aux_attributes else (),
        config.aux_weight,
        config.mixup,
    )


def _build_models(
    config: TrainConfig,
    momentum: float,
    preprocessing: str | None,
    attributes: int,
) -> tuple[keras.Model, keras.Model, str]:
    """Builds the inference model, the training model, and names their preprocessing."""
    size, dropout, seed = config.input_size, config.dropout, config.seed
    # What is evaluated, saved and predicted with is float32 under every policy.
    with models.float32():
        if preprocessing is None:
            model, preprocessing = models.build_initial(
                config.model, size, config.weights, dropout, seed
            )
        else:
            model = models.build(config.model, size, preprocessing, dropout, seed)
    in_policy = models.build(config.model, size, preprocessing, dropout, seed)
    in_policy.set_weights(model.get_weights())
    attributes = attributes - 1 if config.aux_attributes else 0
    training_model = build_training_model(
        in_policy, momentum, attributes, config.aux_heads
    )
    return model, training_model, preprocessing


def auxiliary_attributes(manifest: Manifest) -> tuple[int, ...]:
    """Numbers of all attributes but the label's, in the order of the records."""
    names = enumerate(manifest.attributes)
    return tuple(number for number, name in names if name != manifest.attribute)


def norm_momentum(total_steps: int) -> float:
    """Momentum of batch normalization's moving statistics for a run of some steps.

    What they start from must have faded well before the end: after a tenth of a very
    short run, it is down to 1/e.
    """
    if total_steps >= _SHORT_RUN_STEPS:
        return _MOMENTUM
    return min(max(1 - 10 / total_steps, _LEAST_MOMENTUM), _SHORT_RUN_MOMENTUM)


def _steps_per_epoch(config: TrainConfig, runtime: Runtime, dataset: Dataset) -> int:
    examples = dataset.manifest.num_examples("train")
    if config.batch_size > examples:
        raise usage_error(
            f"--batch_size={config.batch_size} is more than the {examples} training "
            "examples.",
            f"Use --batch_size={examples} or less, or build a larger dataset.",
        )
    if config.batch_size < runtime.replicas:
        raise usage_error(
            f"--batch_size={config.batch_size} is less than one example for each of "
            f"{runtime.replicas} replicas.",
            f"Use --batch_size={runtime.replicas} or more.",
        )
    return examples // config.batch_size
