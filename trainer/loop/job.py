"""A run's parts: models, optimizer, objective and steps, built from the options."""

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
from trainer.models import training_model

#: Below this many steps in all, the moving statistics must follow faster.
_SHORT_RUN_STEPS = 2000
_STATISTICS = ("/moving_mean", "/moving_variance")
_MOMENTUM, _SHORT_RUN_MOMENTUM, _LEAST_MOMENTUM = 0.99, 0.97, 0.8


class Job:
    """A run's parts: built once, from its options.

    Attributes:
      cached: the splits whose decoded images stay in memory.
      model: the inference model, in float32, that is evaluated and saved: it takes
        the averaged weights.
      training_model: see `trainer.models.training_model`.
      preprocessing: the name of the models' preprocessing.
    """

    def __init__(
        self,
        config: TrainConfig,
        runtime: Runtime,
        dataset: Dataset,
        preprocessing: str | None = None,
        cached: tuple[str, ...] = (),
    ):
        """Builds models, optimizer and steps for a dataset.

        A run that resumes gives its preprocessing: its weights come from a checkpoint,
        so those of --weights are not read again.

        Raises:
          UserError: the batch is larger than the training split, or smaller than the
            number of replicas; the weights do not fit (exit 2).
        """
        self.config, self.runtime = config, runtime
        self.dataset, self.cached = dataset, cached
        self.steps_per_epoch = _steps_per_epoch(config, runtime, dataset)
        total = self.steps_per_epoch * config.epochs
        check_profile_steps(config, total)
        self.objective = _objective(config, dataset.manifest)
        with runtime.strategy.scope():
            self.model, self.preprocessing = _build_model(config, preprocessing)
            self.training_model = self._build_training_model(norm_momentum(total))
            self.optimizer = Optimizer(
                [one.value for one in self.training_model.trainable_variables],
                Schedule(
                    config.learning_rate,
                    round(config.warmup_epochs * self.steps_per_epoch),
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
        self.train_step = TrainStep(
            self.training_model,
            augment,
            self.optimizer,
            self.objective,
            runtime.xla,
            runtime.strategy,
            config.seed,
        )
        self.evaluation_step = EvaluationStep(self.model, runtime.strategy)

    def _build_training_model(self, momentum: float) -> keras.Model:
        """The model that learns, under the precision policy, with the same weights."""
        config = self.config
        in_policy = models.build(
            config.model,
            config.input_size,
            self.preprocessing,
            config.dropout,
            config.seed,
        )
        in_policy.set_weights(self.model.get_weights())
        others = len(self.objective.auxiliary)
        built = training_model.build(in_policy, momentum, others, config.aux_heads)
        if config.regime == "transfer":
            models.freeze_backbone(built)
        return built

    def train_dataset(self, start: int) -> tf.data.Dataset:
        """Batches of the whole run from a step on, see `data.train_dataset`."""
        batches = train_dataset(
            self.dataset,
            self.config.batch_size,
            self.config.seed,
            self.config.epochs,
            start,
            self.config.shuffle_buffer,
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
        model, optimizer = self.training_model.variables, self.optimizer.variables
        return {
            **{f"model/{index}": one.value for index, one in enumerate(model)},
            **{f"optimizer/{name}": one for name, one in optimizer.items()},
            "sums": self.train_step.sums,
        }

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
        sources = training_model.shared_weights(self.training_model)
        for source, target in zip(sources, self.model.weights, strict=True):
            value = values.get(source.path, source.value)
            target.assign(tf.convert_to_tensor(value))


def _objective(config: TrainConfig, manifest: Manifest) -> Objective:
    # All attributes but the label's, by their numbers in the records.
    others = tuple(
        number
        for number, name in enumerate(manifest.attributes)
        if config.aux_attributes and name != manifest.attribute
    )
    return Objective(
        config.batch_size,
        config.label_smoothing,
        manifest.class_weights,
        others,
        config.aux_weight,
        config.mixup,
    )


def _build_model(
    config: TrainConfig, preprocessing: str | None
) -> tuple[keras.Model, str]:
    size, flip_average = config.input_size, config.flip_average
    random = config.dropout, config.seed
    # What is evaluated, saved and predicted with is float32 under every policy.
    with models.float32():
        if preprocessing is None:
            return models.build_initial(
                config.model, size, config.weights, *random, flip_average
            )
        model = models.build(config.model, size, preprocessing, *random, flip_average)
        return model, preprocessing


def norm_momentum(total_steps: int) -> float:
    """Momentum of batch normalization's moving statistics for a run of some steps.

    What they start from must have faded well before the end: after a tenth of a very
    short run, it is down to 1/e.
    """
    if total_steps >= _SHORT_RUN_STEPS:
        return _MOMENTUM
    return min(max(1 - 10 / total_steps, _LEAST_MOMENTUM), _SHORT_RUN_MOMENTUM)


def _steps_per_epoch(config: TrainConfig, runtime: Runtime, dataset: Dataset) -> int:
    size, replicas = config.batch_size, runtime.replicas
    examples = dataset.manifest.num_examples("train")
    if size > examples:
        raise usage_error(
            f"--batch_size={size} is more than the {examples} training examples.",
            f"Use --batch_size={examples} or less, or build a larger dataset.",
        )
    if size < replicas:
        raise usage_error(
            f"--batch_size={size} is less than one example for each of {replicas} "
            "replicas.",
            f"Use --batch_size={replicas} or more.",
        )
    return examples // size
