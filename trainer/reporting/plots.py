"""The figures of a report: learning curves, confusion matrix, curves of the test.

Each function draws on axes, its last argument; with the others bound it is a panel,
which `support.figures` draws as PNG or SVG. `label` is (n,) 0 or 1, `probability` (n,)
of label 1, 0..1, `threshold` the lowest probability of a predicted 1, and `names` are
those of labels 0 and 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from support.figures import MUTED, PRIMARY, SECONDARY
from trainer.evaluation import calibration

_BINS = 10
#: Times the highest training loss: where the loss axis ends at most.
_HIGHEST_LOSS = 3
_CHANCE = {"color": MUTED, "linewidth": 1, "linestyle": (0, (2, 3))}


def loss(history: pd.DataFrame, best_epoch: int, axes: Axes) -> None:
    """Training and validation loss by epoch; `history` as in `history.csv`.

    One wild validation loss, common in first epochs while the statistics of batch
    normalization settle, would flatten all the others: then the axis is cut off.
    """
    _curve(axes, history, "loss", best_epoch)
    highest = history["val_loss"].max()
    limit = _HIGHEST_LOSS * history["loss"].max()
    if highest > limit:
        axes.set_ylim(top=limit, bottom=0)
        axes.set_xlabel(f"epoch (validation loss up to {highest:.3g} is cut off)")


def accuracy(history: pd.DataFrame, best_epoch: int, axes: Axes) -> None:
    """Training and validation accuracy by epoch."""
    _curve(axes, history, "accuracy", best_epoch)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def confusion_matrix(
    matrix: Sequence[Sequence[int]], names: Sequence[str], axes: Axes
) -> None:
    """Counts and fractions of each true class; `matrix` is [[tn, fp], [fn, tp]]."""
    counts = np.asarray(matrix)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
    for row, column in np.ndindex(2, 2):
        count, fraction = counts[row, column], fractions[row, column]
        color = PRIMARY if row == column else SECONDARY
        alpha = 0.06 + 0.34 * fraction
        axes.bar(column, 0.97, 0.97, row - 0.485, color=color, alpha=alpha, linewidth=0)
        axes.text(column, row, f"{count:,}", ha="center", va="bottom", fontsize=17)
        text = f"{100 * fraction:.1f} % of row"
        axes.text(column, row + 0.09, text, ha="center", va="top")
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.tick_params(pad=6)
    axes.set(xlabel="prediction", ylabel="label", title="Confusion matrix")
    axes.grid(False)
    axes.spines[:].set_visible(False)


def roc(
    label: np.ndarray, probability: np.ndarray, threshold: float, axes: Axes
) -> None:
    """The ROC curve with the threshold in use; a line of text if a class is missing."""
    _unit_square(axes, "ROC", "false-positive rate", "true-positive rate")
    axes.plot([0, 1], [0, 1], **_CHANCE)
    if _lacks_a_class(axes, label):
        return
    false, true, _ = roc_curve(label, probability)
    axes.fill_between(false, true, color=PRIMARY, alpha=0.1, linewidth=0)
    axes.plot(false, true, color=PRIMARY, clip_on=False)
    predicted = probability >= threshold
    used = predicted[label == 0].mean(), predicted[label == 1].mean()
    _dot(axes, used, f"threshold {threshold:g}", (10, -14))


def precision_recall(
    label: np.ndarray, probability: np.ndarray, threshold: float, axes: Axes
) -> None:
    """Precision against recall with the threshold in use, if both classes occur."""
    _unit_square(axes, "Precision and recall", "recall", "precision")
    if _lacks_a_class(axes, label):
        return
    axes.plot([0, 1], [label.mean()] * 2, **_CHANCE)
    precision, recall, _ = precision_recall_curve(label, probability)
    # A recall in between has the precision of the next threshold.
    axes.fill_between(
        recall, precision, step="post", color=PRIMARY, alpha=0.1, linewidth=0
    )
    axes.plot(recall, precision, color=PRIMARY, drawstyle="steps-post", clip_on=False)
    predicted = probability >= threshold
    if predicted.any():
        used = predicted[label == 1].mean(), label[predicted].mean()
        _dot(axes, used, f"threshold {threshold:g}", (-10, -14))


def reliability(label: np.ndarray, probability: np.ndarray, axes: Axes) -> None:
    """How often the label is 1 where the model says p; area of a dot by examples."""
    bins = calibration.reliability(label, probability, _BINS)
    predicted, observed, counts = bins["probability"], bins["share"], bins["n"]
    _unit_square(axes, "Reliability", "predicted probability", "fraction labeled so")
    axes.plot([0, 1], [0, 1], **_CHANCE)
    axes.plot(predicted, observed, color=PRIMARY, linewidth=1, alpha=0.6)
    area = 12 + 240 * counts / counts.max()
    axes.scatter(predicted, observed, s=area, color=PRIMARY, clip_on=False, zorder=3)


def coverage(curve: pd.DataFrame, band: Mapping[str, Any] | None, axes: Axes) -> None:
    """Error among the covered images against coverage.

    Args:
      curve: see `calibration.coverage_curve`.
      band: see `calibration.abstention`: the dot; None draws none.
    """
    axes.plot(curve["coverage"], curve["error"], color=PRIMARY, drawstyle="steps-post")
    if band is not None and band["decided"]:
        x, y = band["coverage"]["value"], band["error"]["value"]
        text = f"abstains: 50 ± {100 * band['abstain']:.3g} %"
        _dot(axes, (x, y), text, (-10, 8))
    axes.set(xlabel="coverage", ylabel="error of these", title="Coverage and error")
    axes.set(xlim=(0, 1.03), ylim=(0, max(1.15 * curve["error"].max(), 0.01)))
    axes.tick_params(pad=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def probabilities(
    label: np.ndarray, probability: np.ndarray, names: Sequence[str], axes: Axes
) -> None:
    """How many images of each label got which probability, on a logarithmic scale."""
    axes.hist(
        [probability[label == value] for value in (0, 1)],
        bins=np.linspace(0, 1, _BINS + 1),
        color=[MUTED, PRIMARY],
        label=[f"labeled {name}" for name in names],
        log=True,
        rwidth=0.85,
    )
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set(xlabel="predicted probability", ylabel="images", title="Confidence")
    axes.margins(y=0.3)  # room for the legend
    axes.set(xlim=(0, 1), ylim=(0.5, None))
    axes.grid(False, axis="x")
    axes.legend(loc="upper center", fontsize=9)


def _curve(axes: Axes, history: pd.DataFrame, column: str, best_epoch: int) -> None:
    epoch = history["epoch"]
    marker = "o" if len(history) <= 12 else ""
    for name, color, text in (
        (column, MUTED, "training (augmented)"),
        (f"val_{column}", PRIMARY, "validation"),
    ):
        axes.plot(epoch, history[name], color=color, marker=marker, label=text)
    best = history[epoch == best_epoch]
    axes.axvline(best_epoch, color=SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
    label = f"best epoch ({best_epoch})"
    point = best["epoch"], best[f"val_{column}"]
    axes.plot(*point, "o", color=SECONDARY, markersize=7, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", title=column.capitalize())
    axes.legend(loc="best", fontsize=9)


def _unit_square(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    margin, ticks = (-0.03, 1.03), np.linspace(0, 1, 6)
    axes.set(xlim=margin, ylim=margin, xticks=ticks, yticks=ticks)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)


def _lacks_a_class(axes: Axes, label: np.ndarray) -> bool:
    """Says so in place of the curve, which needs both."""
    lacks = len(np.unique(label)) < 2
    if lacks:
        axes.text(0.5, 0.5, "needs both classes", ha="center", color=MUTED)
    return lacks


def _dot(
    axes: Axes, place: tuple[float, float], text: str, offset: tuple[float, float]
) -> None:
    """Marks a place in use; its text is `offset` points away."""
    axes.plot(*place, "o", color=SECONDARY, markersize=7, clip_on=False)
    axes.annotate(
        text,
        place,
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        color=SECONDARY,
    )
